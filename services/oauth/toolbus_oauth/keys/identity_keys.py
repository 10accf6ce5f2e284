"""Keys that sign caller identity headers in executor; upstream servers get the public keys."""

from collections.abc import Mapping
from dataclasses import dataclass

from toolbus_common.contracts import IdentityKeyQuery, IdentityKeyReply, PageReply
from toolbus_common.errors import InvalidError
from toolbus_oauth.keys.signing_keys import SigningKeys
from toolbus_oauth.web.request import Handler, Request, cacheable_response

PATH = "/oauth/identity-keys"


@dataclass(frozen=True, slots=True)
class IdentityKeys:
    """Handlers that return the identity keys.

    These keys are separate from the access-token keys, so that executor cannot sign access tokens.
    """

    issuer: str
    keys: SigningKeys

    async def answer(self, _query: IdentityKeyQuery) -> IdentityKeyReply:
        """Return the current private key. Raises `InvalidError` if there is no public URL."""
        if not self.issuer:
            raise InvalidError(
                "Identity headers need a public URL for their keys: set TOOLBUS_PUBLIC_URL."
            )
        name, key = self.keys.newest
        return IdentityKeyReply(issuer=self.issuer, id=name, key=key)

    @property
    def paths(self) -> Mapping[tuple[str, str], Handler]:
        """The HTTP routes."""
        return {("GET", PATH): self._public}

    async def _public(self, request: Request) -> PageReply:  # noqa: ARG002
        return cacheable_response(self.keys.public())
