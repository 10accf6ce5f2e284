"""Decide which owner's session a call belongs to. Pure."""

from dataclasses import dataclass, field

from toolbus_common.access.anonymous import ANONYMOUS
from toolbus_common.access.session_owner import digest_of
from toolbus_common.config.servers.server import Sessions
from toolbus_common.contracts import CallAdmitted, ProtocolFamily
from toolbus_executor.mcp_messages.client_capabilities import kinds_of


@dataclass(frozen=True, slots=True)
class Owner:
    """A principal, or one of its client sessions; `label` is its name for operators.

    `counted` names the owner whose quota it shares; empty means its principal's.
    """

    principal_id: str
    session: str = ""
    label: str = field(default="", compare=False)
    counted: str = field(default="", compare=False)

    @property
    def quota(self) -> str:
        """The owner whose quota it uses."""
        return self.counted or self.principal_id

    @property
    def id(self) -> str:
        """A pseudonymous id, valid as a bus subject token."""
        return digest_of(self.principal_id, self.session) if self.session else self.principal_id


class Ownership:
    """The ownership rule of one server; `asks` is set once it sends a request to a caller."""

    def __init__(self, mode: Sessions) -> None:
        self.asks = False
        self._mode = mode

    def of(self, call: CallAdmitted) -> Owner:
        """Return the owner of the session that a call belongs to."""
        principal_id = call.principal_id or _principal_of(call)
        session = call.session if self._per_client(call) else ""
        # Each session of an anonymous client is a principal, but all share one quota.
        counted = digest_of(ANONYMOUS, call.customer) if call.key == ANONYMOUS else ""
        return Owner(principal_id, session, _label_of(call), counted)

    def note_question(self) -> None:
        """Record that the server sends requests to its callers."""
        self.asks = True

    def _per_client(self, call: CallAdmitted) -> bool:
        """Return whether the owner is the client session, as it is if the client supports input."""
        if self._mode == "client":
            return True
        return (
            self.asks and call.family is ProtocolFamily.LEGACY and bool(kinds_of(call.capabilities))
        )


def _principal_of(call: CallAdmitted) -> str:
    """Return the principal of a call from an older policy service, which names none."""
    if call.user:
        return digest_of("user", call.customer, call.user)
    return digest_of("key", call.customer, call.key, "")


def _label_of(call: CallAdmitted) -> str:
    return f"user {call.user}" if call.user else f"key {call.key}"
