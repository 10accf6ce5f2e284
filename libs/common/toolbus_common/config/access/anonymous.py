"""What callers without a credential may do."""

from typing import Self

from pydantic import model_validator

from toolbus_common.config.access.levels import Key, KeyTerms


class Anonymous(KeyTerms):
    """The principal that all callers without a credential share; it is off without grants.

    It is served on this machine alone, unless `allow_remote` says that everybody who reaches the
    gateway may use these tools.
    """

    allow_remote: bool = False

    @property
    def on(self) -> bool:
        """Whether anything is granted."""
        return bool(self.tools or self.groups)

    @property
    def key(self) -> Key:
        """The same as a key; no secret opens it."""
        return Key(**{name: getattr(self, name) for name in KeyTerms.model_fields})

    @model_validator(mode="after")
    def _is_nobody(self) -> Self:
        if self.user:
            raise ValueError("names a user, but anonymous callers are nobody; leave user out")
        if self.rights:
            raise ValueError("has rights, but anonymous callers approve nothing; leave rights out")
        return self
