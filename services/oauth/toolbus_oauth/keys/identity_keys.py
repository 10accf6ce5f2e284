"""The keys that say who calls a server: the private one for executor, the public ones for all."""

from collections.abc import Mapping
from dataclasses import dataclass

from toolbus_common.contracts import IdentityKeyQuery, IdentityKeyReply, PageReply
from toolbus_common.errors import InvalidError
from toolbus_oauth.keys.signing_keys import SigningKeys
from toolbus_oauth.web.request import Handler, Request, kept

PATH = "/oauth/identity-keys"


@dataclass(frozen=True, slots=True)
class Identifying:
    """Apart from the keys of access tokens: with these nobody can make one of those."""

    issuer: str
    keys: SigningKeys

    async def tell(self, _asked: IdentityKeyQuery) -> IdentityKeyReply:
        """The key of now. Raises `InvalidError` where nobody could look for the public one."""
        if not self.issuer:
            raise InvalidError("Servers cannot be told who calls: set TOOLBUS_PUBLIC_URL of oauth.")
        name, key = self.keys.newest
        return IdentityKeyReply(issuer=self.issuer, id=name, key=key)

    @property
    def paths(self) -> Mapping[tuple[str, str], Handler]:
        """What is answered over HTTP."""
        return {("GET", PATH): self._public}

    async def _public(self, request: Request) -> PageReply:  # noqa: ARG002
        return kept(self.keys.public())
