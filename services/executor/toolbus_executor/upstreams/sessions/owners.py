"""Rule for the owner of the session that a call belongs to."""

from dataclasses import dataclass, field

from toolbus_common.access.anonymous import ANONYMOUS
from toolbus_common.access.session_owner import digest_of
from toolbus_common.config.servers.server import Sessions
from toolbus_common.contracts import CallAdmitted, ProtocolFamily
from toolbus_executor.mcp_messages.client_capabilities import kinds_of


@dataclass(frozen=True, slots=True)
class Owner:
    """A principal, or one client session of a principal. `label` is its name for operators.

    `counted` is the owner whose quota this owner shares; the default is the principal.
    """

    principal_id: str
    session: str = ""
    label: str = field(default="", compare=False)
    counted: str = field(default="", compare=False)

    @property
    def quota(self) -> str:
        """The id of the owner whose quota applies."""
        return self.counted or self.principal_id

    @property
    def id(self) -> str:
        """The owner's pseudonymous id. It is valid as a token of a bus subject."""
        return digest_of(self.principal_id, self.session) if self.session else self.principal_id


class Ownership:
    """The ownership rule of one server. `sends_requests` is set when the server sends a request."""

    def __init__(self, mode: Sessions) -> None:
        self.sends_requests = False
        self._mode = mode

    def of(self, call: CallAdmitted) -> Owner:
        """Return the owner of the session that a call belongs to."""
        principal_id = call.principal_id or _principal_of(call)
        session = call.session if self._per_client(call) else ""
        # Each session of an anonymous client is a principal, but all of these share one quota.
        counted = digest_of(ANONYMOUS, call.customer) if call.key == ANONYMOUS else ""
        return Owner(principal_id, session, _label_of(call), counted)

    def note_question(self) -> None:
        """Record that the server sends requests to clients."""
        self.sends_requests = True

    def _per_client(self, call: CallAdmitted) -> bool:
        """Return whether the client session is the owner of a call's session."""
        if self._mode == "client":
            return True
        return (
            self.sends_requests
            and call.family is ProtocolFamily.LEGACY
            and bool(kinds_of(call.capabilities))
        )


def _principal_of(call: CallAdmitted) -> str:
    """Return the principal of a call.

    A call from an older policy service contains no `principal_id`.
    """
    if call.user:
        return digest_of("user", call.customer, call.user)
    return digest_of("key", call.customer, call.key, "")


def _label_of(call: CallAdmitted) -> str:
    return f"user {call.user}" if call.user else f"key {call.key}"
