"""Decide whose session at a server a call belongs to. Pure."""

from dataclasses import dataclass, field

from toolbus_common.access.anonymous import ANONYMOUS
from toolbus_common.access.session_owner import digest_of
from toolbus_common.config.servers.server import Sessions
from toolbus_common.contracts import CallAdmitted, ProtocolFamily
from toolbus_executor.mcp_messages.client_capabilities import kinds_of


@dataclass(frozen=True, slots=True)
class Owner:
    """A principal, or one client session of it; `label` is how operators read it.

    `counted` is with whom it shares its places; empty: those of its principal.
    """

    principal_id: str
    session: str = ""
    label: str = field(default="", compare=False)
    counted: str = field(default="", compare=False)

    @property
    def quota(self) -> str:
        """Whose places it takes."""
        return self.counted or self.principal_id

    @property
    def id(self) -> str:
        """A name for it that reveals nothing, as the bus can carry it."""
        return digest_of(self.principal_id, self.session) if self.session else self.principal_id


class Ownership:
    """The rule of one server. `asks` is set once the server asked a caller something."""

    def __init__(self, mode: Sessions) -> None:
        self.asks = False
        self._mode = mode

    def of(self, call: CallAdmitted) -> Owner:
        """Return who owns the session a call belongs to."""
        principal_id = call.principal_id or _principal_of(call)
        session = call.session if self._per_client(call) else ""
        # Each session of an anonymous client is a principal; their places they share.
        counted = digest_of(ANONYMOUS, call.customer) if call.key == ANONYMOUS else ""
        return Owner(principal_id, session, _label_of(call), counted)

    def note_question(self) -> None:
        """Take note that the server asks its callers."""
        self.asks = True

    def _per_client(self, call: CallAdmitted) -> bool:
        """Whether the client's own session counts, as it does where its client can be asked."""
        if self._mode == "client":
            return True
        return (
            self.asks and call.family is ProtocolFamily.LEGACY and bool(kinds_of(call.capabilities))
        )


def _principal_of(call: CallAdmitted) -> str:
    """The principal of a call that was admitted by an older policy, which names none."""
    if call.user:
        return digest_of("user", call.customer, call.user)
    return digest_of("key", call.customer, call.key, "")


def _label_of(call: CallAdmitted) -> str:
    return f"user {call.user}" if call.user else f"key {call.key}"
