"""Sign-in links of the console: a code that can be exchanged for an admin key once."""

import secrets
from dataclasses import dataclass
from time import time

from toolbus_common.contracts import SignInLinkQuery, SignInLinkReply
from toolbus_oauth.storage.records import SignInLink, Used
from toolbus_oauth.storage.store import Store

LINK_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class SignInLinks:
    """Repository of unused links. Only a digest of a code is stored, with the encrypted key."""

    brief: Store

    async def create(self, secret: str) -> str:
        """Return the code of a new link for an admin key."""
        code = secrets.token_urlsafe(32)
        await self.brief.put(code, SignInLink(secret, time() + LINK_SECONDS))
        return code

    async def redeem(self, query: SignInLinkQuery) -> SignInLinkReply:
        """Return the admin key of a link once; empty if the code is unknown, expired or used."""
        link = await self.brief.get(SignInLink, query.code)
        if link is None or link.expires < time():
            return SignInLinkReply()
        if not await self.brief.swap(f"link {query.code}", Used(), 0):
            return SignInLinkReply()
        await self.brief.drop(SignInLink, query.code)
        return SignInLinkReply(secret=link.secret)
