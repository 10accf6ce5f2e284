"""Browser flow in which a person connects an account at an upstream server."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from time import time

from toolbus_common.config import Configuration, Server
from toolbus_common.contracts import PageReply
from toolbus_oauth.oauth_client.authorization_url import authorization_url
from toolbus_oauth.oauth_client.identity import TokenRequestError
from toolbus_oauth.server.authorize_flow import BROWSER, AuthorizeFlow, with_cookie
from toolbus_oauth.storage.records import AuthorizationRequest, Ticket, Used
from toolbus_oauth.storage.store import Store
from toolbus_oauth.upstreams.client_identity import ClientIdentities, needs_no_consent
from toolbus_oauth.upstreams.connection_repository import ConnectionRepository
from toolbus_oauth.upstreams.connections.records import Link, PendingAuthorization
from toolbus_oauth.upstreams.discovery import DiscoveryError
from toolbus_oauth.upstreams.id_jag import SignInRequiredError
from toolbus_oauth.upstreams.token_provider import TokenProvider, link_of
from toolbus_oauth.web import pages
from toolbus_oauth.web.errors import PageError
from toolbus_oauth.web.request import Request, redirect_response

PREFIX = "/oauth/connect/"
PENDING_SECONDS = 600.0
_EXPIRED = "This link is unknown or has expired. Call the tool again for a new one."
_OTHER_BROWSER = "This page belongs to another browser, or it has expired. Open the link again."
_OTHER_ISSUER = (
    "The response came from another authorization server and was ignored. Open the link again."
)
_FLAGS = "Path=/; Secure; HttpOnly; SameSite=Lax"


@dataclass(slots=True)
class ConnectFlow:
    """Handlers of the connect pages; `authorize_flow` identifies the person."""

    authorize_flow: AuthorizeFlow
    brief: Store
    connections: ConnectionRepository
    token_provider: TokenProvider
    clients: ClientIdentities
    config: Callable[[], Configuration]

    async def begin(self, request: Request) -> PageReply:
        """Show the page of a link."""
        link = await self._link(request.page.path.removeprefix(PREFIX))
        auth_request = AuthorizationRequest(
            client_id=link.user,
            client="Toolbus",
            redirect=link.authorize,
            state="",
            challenge="",
            scope=" ".join(link.scopes),
            resource=link.server,
            registered=False,
            connect=link.id,
        )
        if link.user:
            return await self.authorize_flow.begin(request, auth_request)
        browser = request.cookies.get(BROWSER, "")
        if len(browser) != 32 or not browser.isalnum():  # noqa: PLR2004 - the length of token_hex(16)
            browser = secrets.token_hex(16)
        ticket = Ticket(auth_request, browser, time() + PENDING_SECONDS, secrets.token_hex(12))
        shown = pages.connect(ticket, self.authorize_flow.seal.close(ticket))
        return with_cookie(shown, f"{BROWSER}={browser}; {_FLAGS}")

    async def answered(self, request: Request) -> PageReply:
        """Handle the confirmation form; each ticket is accepted once."""
        ticket, answer = self.authorize_flow.ticket_of(request), request.form.get("answer")
        link = await self._link(ticket.auth_request.connect)
        if link.user and (ticket.person is None or answer not in ("allow", "deny", "switch")):
            raise PageError(_OTHER_BROWSER, 403)
        if answer == "switch":
            return self.authorize_flow.sign_in_again(ticket)
        if ticket.person is not None and ticket.person.user != link.user:
            raise PageError(
                "This link is for another person. Call the tool again for a link of your own.", 403
            )
        if ticket.person is not None and not await self.authorize_flow.accounts.is_current(
            ticket.person
        ):
            raise PageError(_OTHER_BROWSER, 403)
        if not await self.brief.swap(f"ticket {ticket.id}", Used(), 0):
            raise PageError("This request was already answered. Open the link again.")
        if answer != "allow":
            return pages.message_page(
                "Not connected", "You denied the connection. You can close this page."
            )
        server = self._server(link)
        if needs_no_consent(server):
            return await self._connect_asserted(link, server, ticket)
        return await self._redirect_to_issuer(link, ticket.browser)

    async def returned(self, request: Request) -> PageReply:
        """Handle the redirect back from the authorization server."""
        query = request.query
        pending = await self._pending(query.get("state", ""))
        link = pending.link
        if request.cookies.get(BROWSER) != pending.browser:
            raise PageError(_OTHER_BROWSER, 403)
        url = f"{self.clients.issuer}{request.page.path}"
        if url != self.clients.redirect(link) or not _is_sender(link, query.get("iss")):
            raise PageError(_OTHER_ISSUER, 403)  # show no untrusted parameter
        server = self._server(link)
        if "error" in query:
            raise PageError(
                f"The connection to {link.server} was denied. Call the tool again to retry."
            )
        try:
            await self.connections.complete(server, link, query.get("code", ""), pending.verifier)
        except (DiscoveryError, TokenRequestError) as error:
            raise _token_error(link, error) from error
        return _connected(link)

    def _server(self, link: Link) -> Server:
        server = self.config().servers.get(link.server)
        if server is None or server.oauth is None or server.oauth_place != link.url:
            raise PageError("The server's configuration has changed. Call the tool again.")
        return server

    async def _connect_asserted(self, link: Link, server: Server, ticket: Ticket) -> PageReply:
        """Connect with the provider's assertion; if it is missing, show the sign-in form."""
        try:
            await self.token_provider.vouched(link, server)
        except SignInRequiredError:
            return self.authorize_flow.sign_in_again(ticket)
        except (DiscoveryError, TokenRequestError) as error:
            raise _token_error(link, error) from error
        return _connected(link)

    async def _link(self, name: str) -> Link:
        link = await link_of(self.brief, name) if name else None
        if link is None:
            raise PageError(_EXPIRED, 404)
        return link

    async def _redirect_to_issuer(self, link: Link, browser: str) -> PageReply:
        """Redirect the browser to the authorization server."""
        state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(48)
        await self.brief.put(
            state, PendingAuthorization(link, browser, verifier, time() + PENDING_SECONDS)
        )
        # OpenID Connect ignores offline_access without `prompt=consent`.
        prompt = "consent" if "offline_access" in link.scopes else ""
        url = authorization_url(
            link.authorize, link.client_id, verifier, redirect_uri=self.clients.redirect(link),
            state=state, resource=link.resource, scope=" ".join(link.scopes), prompt=prompt,
        )  # fmt: skip
        return redirect_response(url)

    async def _pending(self, state: str) -> PendingAuthorization:
        pending = await self.brief.get(PendingAuthorization, state) if state else None
        if pending is None or pending.expires < time():
            raise PageError("This authorization is unknown or has expired. Open the link again.")
        if not await self.brief.swap(f"away {state}", Used(), 0):
            raise PageError("This authorization was already completed. Open the link again.")
        return pending


def _connected(link: Link) -> PageReply:
    return pages.message_page(
        "Connected", f"Toolbus can now use {link.server}. You can return to your application."
    )


def _token_error(link: Link, error: Exception) -> PageError:
    return PageError(f"The authorization server of {link.server} issued no token: {error}.", 502)


def _is_sender(link: Link, iss: str | None) -> bool:
    """Return whether the requested issuer sent the response (RFC 9207)."""
    return not link.says_issuer if iss is None else iss == link.issuer
