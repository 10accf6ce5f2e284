"""State that clients store for the gateway: encrypted by ingress, and limited in size."""

from toolbus_common.crypto import sealed_tokens
from toolbus_common.crypto.sealed_tokens import LONGEST, Claims
from toolbus_common.errors import UpstreamInvalidError

__all__ = [
    "LONGEST",
    "ClaimSealer",
    "Claims",
    "DoneClaims",
    "SessionClaims",
    "StateClaims",
    "TaskClaims",
]


class SessionClaims(Claims, frozen=True):
    """A session. `capabilities` is raw JSON, and `expires` is in seconds since the epoch."""

    sid: str
    principal_id: str
    version: str
    capabilities: str
    expires: float


class StateClaims(Claims, frozen=True):
    """The `requestState` of a server (None without a state), and the request that it belongs to."""

    state: str | None
    principal_id: str
    request: str
    expires: float


class TaskClaims(Claims, frozen=True):
    """A server's task: its id at the server, its server and tool, and its owner."""

    task: str
    server: str
    tool: str
    principal_id: str


class DoneClaims(Claims, frozen=True):
    """A task that was complete when it was created.

    `result` is raw JSON, and `at` is in seconds since the epoch.
    """

    result: bytes
    server: str
    tool: str
    principal_id: str
    at: float


class ClaimSealer(sealed_tokens.TokenSealer):
    """Encrypts and decrypts the claims that clients store."""

    def close(self, claims: Claims) -> str:
        """Return the sealed claims as visible ASCII.

        Raises:
            UpstreamInvalidError: the token would exceed `LONGEST`; only a server's data can be
                that long.

        """
        text = super().close(claims)
        if len(text) > LONGEST:
            raise UpstreamInvalidError(
                f"The upstream server's requestState or task id is too long: {len(text)} "
                f"characters when sealed, at most {LONGEST} are allowed (48 KB before sealing). "
                "The server must send a shorter value."
            )
        return text
