"""What a client carries for us: sealed at the edge, and bounded."""

from toolbus_common.crypto import sealed_tokens
from toolbus_common.crypto.sealed_tokens import LONGEST, Claims
from toolbus_common.errors import UpstreamFaultError

__all__ = [
    "LONGEST",
    "Claims",
    "DoneClaims",
    "Seal",
    "SessionClaims",
    "StateClaims",
    "TaskClaims",
]


class SessionClaims(Claims, frozen=True):
    """A handshake-family session: `capabilities` is raw JSON, `expires` in epoch seconds."""

    sid: str
    principal_id: str
    version: str
    capabilities: str
    expires: float


class StateClaims(Claims, frozen=True):
    """The server's `requestState` (None where it sent none), and the request it belongs to."""

    state: str | None
    principal_id: str
    request: str
    expires: float


class TaskClaims(Claims, frozen=True):
    """A server's task: which, where, and whose."""

    task: str
    server: str
    tool: str
    principal_id: str


class DoneClaims(Claims, frozen=True):
    """A task that was over when it began: its raw result, of which tool, whose, and since when."""

    result: bytes
    server: str
    tool: str
    principal_id: str
    at: float


class Seal(sealed_tokens.TokenSealer):
    """The seal of what clients carry."""

    def close(self, claims: Claims) -> str:
        """The claims as visible ASCII.

        Raises:
            UpstreamFaultError: they are longer than what is opened; only a server's can be.

        """
        text = super().close(claims)
        if len(text) > LONGEST:
            raise UpstreamFaultError(
                f"The upstream's requestState or task id has {len(text)} characters when sealed, "
                f"and {LONGEST} can be carried (48 KB of its own); it must put less into it."
            )
        return text
