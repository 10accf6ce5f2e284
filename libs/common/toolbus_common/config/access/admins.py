"""Admin keys: credentials for administration over HTTP, each with one role."""

from typing import Literal

from pydantic import Field

from toolbus_common.config.access.expiry import Expiry, expired
from toolbus_common.config.base import ConfigModel

Role = Literal["viewer", "auditor", "operator", "admin"]


class Admin(ConfigModel):
    """An admin key. It has the rights of its `role` in administration, and cannot call tools.

    `expires` is the last valid day in UTC, or a time. `secret_hash` is SHA-256 of SHA-256 of the
    secret, in hex.
    """

    role: Role
    expires: Expiry | None = None
    secret_hash: str = Field(default="", repr=False)
    revoked: bool = False

    def live(self, now: float) -> bool:
        """Return whether the key is neither revoked nor expired."""
        return not self.revoked and not expired(self.expires, now)
