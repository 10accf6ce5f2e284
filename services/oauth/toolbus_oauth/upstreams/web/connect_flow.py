"""The pages at which a person lets Toolbus act for them at a server, and the way back."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from time import time

from toolbus_common.base64url import encoded
from toolbus_common.config import Configuration, Server
from toolbus_common.contracts import PageReply
from toolbus_oauth.server.authorize_flow import BROWSER, Browsing, with_cookie
from toolbus_oauth.storage.records import Ticket, Used, Wish
from toolbus_oauth.storage.store import Store
from toolbus_oauth.upstreams.client_identity import Clienthood, asks_nobody
from toolbus_oauth.upstreams.connection_repository import Connections
from toolbus_oauth.upstreams.connections.records import Away, Link
from toolbus_oauth.upstreams.discovery import DiscoveryError
from toolbus_oauth.upstreams.id_jag import UnvouchedError
from toolbus_oauth.upstreams.token_client import RefusedError
from toolbus_oauth.upstreams.token_provider import Telling, link_of
from toolbus_oauth.web import connect_page as pages
from toolbus_oauth.web import pages as html
from toolbus_oauth.web import redirect_uris
from toolbus_oauth.web.errors import PageError
from toolbus_oauth.web.request import Request, redirected

PREFIX = "/oauth/connect/"
AWAY_SECONDS = 600.0
_OLD = "This link is unknown or too old. Call the tool again for a new one."
_NOT_YOURS = "This page belongs to another browser, or is too old. Open the link again."
_OF_ANOTHER = "The answer came from somebody else than was asked. It was not used."
_FLAGS = "Path=/; Secure; HttpOnly; SameSite=Lax"


@dataclass(slots=True)
class Connecting:
    """What happens in the browser; who somebody is, `browsing` finds out."""

    browsing: Browsing
    brief: Store
    connections: Connections
    telling: Telling
    clients: Clienthood
    declared: Callable[[], Configuration]

    async def begin(self, request: Request) -> PageReply:
        """Somebody opens a link."""
        link = await self._link(request.asked.path.removeprefix(PREFIX))
        wish = Wish(
            client_id=link.user,
            client=f"Toolbus, on its way to {link.server},",
            redirect=link.authorize,
            state="",
            challenge="",
            scope=" ".join(link.scopes),
            resource=link.server,
            registered=False,
            connect=link.id,
        )
        if link.user:
            return await self.browsing.begin(request, wish)
        browser = request.cookies.get(BROWSER, "")
        if len(browser) != 32 or not browser.isalnum():  # noqa: PLR2004 - what is given
            browser = secrets.token_hex(16)
        ticket = Ticket(wish, browser, time() + AWAY_SECONDS, secrets.token_hex(12))
        shown = pages.asked(ticket, self.browsing.seal.close(ticket))
        return with_cookie(shown, f"{BROWSER}={browser}; {_FLAGS}")

    async def answered(self, request: Request) -> PageReply:
        """The form with yes and no."""
        ticket, answer = self.browsing.ticket_of(request), request.form.get("answer")
        link = await self._link(ticket.wish.connect)
        if link.user and (ticket.person is None or answer not in ("allow", "deny", "switch")):
            raise PageError(_NOT_YOURS, 403)
        if answer == "switch":
            return self.browsing.sign_in_again(ticket)
        if ticket.person is not None and ticket.person.user != link.user:
            raise PageError("This link is for somebody else.", 403)
        if ticket.person is not None and not await self.browsing.accounts.stands(ticket.person):
            raise PageError(_NOT_YOURS, 403)
        if not await self.brief.swap(f"ticket {ticket.id}", Used(), 0):
            raise PageError("This was answered already. Open the link again.")
        if answer != "allow":
            return html.ended("Not connected", "Toolbus was told no. You can close this page.")
        server = self._server(link)
        if asks_nobody(server):
            return await self._vouched(link, server, ticket)
        return await self._sent(link, ticket.browser)

    async def returned(self, request: Request) -> PageReply:
        """The authorization server sends a browser back."""
        told = request.query
        away = await self._away(told.get("state", ""))
        link = away.link
        if request.cookies.get(BROWSER) != away.browser:
            raise PageError(_NOT_YOURS, 403)
        came = f"{self.clients.issuer}{request.asked.path}"
        if came != self.clients.redirect(link) or not _is_sender(link, told.get("iss")):
            raise PageError(_OF_ANOTHER, 403)  # nothing else of the answer is shown
        server = self._server(link)
        if "error" in told:
            raise PageError(f"{link.server} was told no. Call the tool again to try once more.")
        try:
            await self.connections.made(server, link, told.get("code", ""), away.verifier)
        except (DiscoveryError, RefusedError) as error:
            raise _tokenless(link, error) from error
        return _connected(link)

    def _server(self, link: Link) -> Server:
        server = self.declared().servers.get(link.server)
        if server is None or server.oauth is None or server.oauth_place != link.url:
            raise PageError("The server was changed meanwhile. Call the tool again.")
        return server

    async def _vouched(self, link: Link, server: Server, ticket: Ticket) -> PageReply:
        """Nobody need agree elsewhere, if who somebody signed in with vouches for them."""
        try:
            await self.telling.vouched(link, server)
        except UnvouchedError:
            return self.browsing.sign_in_again(ticket)
        except (DiscoveryError, RefusedError) as error:
            raise _tokenless(link, error) from error
        return _connected(link)

    async def _link(self, name: str) -> Link:
        link = await link_of(self.brief, name) if name else None
        if link is None:
            raise PageError(_OLD, 404)
        return link

    async def _sent(self, link: Link, browser: str) -> PageReply:
        """Send the browser on; what comes back is known by its state."""
        state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(48)
        await self.brief.put(state, Away(link, browser, verifier, time() + AWAY_SECONDS))
        digest = sha256(verifier.encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": link.client_id,
            "redirect_uri": self.clients.redirect(link),
            "state": state,
            "code_challenge": encoded(digest),
            "code_challenge_method": "S256",
        }
        asked |= {"resource": link.resource} if link.resource else {}
        asked |= {"scope": " ".join(link.scopes)} if link.scopes else {}
        if "offline_access" in link.scopes:
            asked["prompt"] = "consent"  # OpenID Connect: else it is ignored
        return redirected(redirect_uris.extended(link.authorize, **asked))

    async def _away(self, state: str) -> Away:
        away = await self.brief.get(Away, state) if state else None
        if away is None or away.expires < time():
            raise PageError("This way back is unknown or too old. Open the link again.")
        if not await self.brief.swap(f"away {state}", Used(), 0):
            raise PageError("This way back was taken before. Open the link again.")
        return away


def _connected(link: Link) -> PageReply:
    return html.ended(
        "Connected", f"Toolbus can use {link.server} now. You can go back to your program."
    )


def _tokenless(link: Link, error: Exception) -> PageError:
    return PageError(f"The authorization server of {link.server} gave no token: {error}.", 502)


def _is_sender(link: Link, told: str | None) -> bool:
    """Whether who was asked is who answers (RFC 9207). Pure."""
    return not link.says_issuer if told is None else told == link.issuer
