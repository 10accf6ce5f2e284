"""Access of callers without a credential."""

from typing import Self

from pydantic import model_validator

from toolbus_common.config.access.levels import Key, KeyTerms


class Anonymous(KeyTerms):
    """The principal of all callers without a credential. Without grants it is disabled.

    Only clients on this machine can use it, unless `allow_remote` permits it to every client that
    reaches the gateway.
    """

    allow_remote: bool = False

    @property
    def on(self) -> bool:
        """Whether callers without a credential have any grants."""
        return bool(self.tools or self.groups)

    @property
    def key(self) -> Key:
        """The anonymous principal in the form of a key without a secret."""
        return Key(**{name: getattr(self, name) for name in KeyTerms.model_fields})

    @model_validator(mode="after")
    def _has_no_identity(self) -> Self:
        if self.user:
            raise ValueError("has 'user', but anonymous callers have none; remove it")
        if self.rights:
            raise ValueError("has 'rights', but anonymous callers cannot approve; remove it")
        return self
