"""Browser flow of the authorization endpoint: sign-in, consent, and the redirect back."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from time import time
from typing import Protocol

from toolbus_common.config import Configuration
from toolbus_common.contracts import Event, PageReply, SignInDenied
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.crypto.sealed_tokens import TokenSealer
from toolbus_oauth.accounts.access_rules import entitled_rule
from toolbus_oauth.accounts.local_accounts import Accounts, SignInError
from toolbus_oauth.accounts.oidc_providers import Providers
from toolbus_oauth.accounts.sign_in_plugins import SignInPlugins
from toolbus_oauth.server import scopes
from toolbus_oauth.server.authorize_request import AuthorizationRequestParser, RedirectedError
from toolbus_oauth.server.device_flow import DeviceFlow
from toolbus_oauth.storage.records import (
    AuthorizationRequest,
    Code,
    PendingSignIn,
    Person,
    Session,
    Ticket,
    Used,
)
from toolbus_oauth.storage.store import Store
from toolbus_oauth.web import pages, redirect_uris
from toolbus_oauth.web.errors import OAuthError, PageError
from toolbus_oauth.web.rate_limit import RateLimit
from toolbus_oauth.web.request import Request, redirect_response

BROWSER, SESSION = "__Host-toolbus-browser", "__Host-toolbus-session"
_FLAGS = "Path=/; Secure; HttpOnly; SameSite=Lax"
TICKET_SECONDS = 600.0
CODE_SECONDS = 60.0
LONGEST_COOKIE = 4096
MAX_DENIALS = 60  # events published in a minute
ACCOUNT = AuthorizationRequest("", "Toolbus", "", "", "", "", "", registered=False, account=True)
_OTHER_BROWSER = (
    "This page belongs to another browser, or it has expired. "
    "Restart the sign-in from your application."
)


class AccountPage(Protocol):
    """Page on which people review and end the access they allowed."""

    async def page(self, person: Person, sealed: str) -> PageReply:
        """Render the access that a person allowed; `sealed` is the encrypted ticket of the form."""
        ...

    async def end_grant(self, person: Person, grant_id: str) -> None:
        """End a person's grant. Raises `PageError` if the person has no such grant."""
        ...

    async def end_connection(self, person: Person, server: str) -> None:
        """End a person's connection to a server. Raises `PageError` if there is none."""
        ...


@dataclass(slots=True)
class AuthorizeFlow:
    """Pages of the browser flow and the handlers of their forms."""

    issuer: str
    seal: TokenSealer
    brief: Store
    parser: AuthorizationRequestParser
    accounts: Accounts
    devices: DeviceFlow
    providers: Providers
    plugins: SignInPlugins
    config: Callable[[], Configuration]
    publish: Callable[[Event], None]
    session_seconds: float
    access_overview: AccountPage
    denial_limit: RateLimit = field(default_factory=lambda: RateLimit(MAX_DENIALS))

    async def authorize(self, request: Request) -> PageReply:
        """Handle an authorization request (RFC 6749 section 4.1.1)."""
        try:
            auth_request = await self.parser.auth_request(request.query)
        except RedirectedError as redirection:
            response = {
                "error": redirection.error.code,
                "error_description": redirection.error.message,
            }
            return self._redirect_to_client(redirection.redirect, redirection.state, **response)
        except OAuthError as error:
            raise PageError(error.message) from error
        return await self.begin(request, auth_request)

    async def device(self, request: Request) -> PageReply:
        """Show the device page, or continue with the query's user code (RFC 8628 section 3.3)."""
        code = request.query.get("user_code", "")
        if not code:
            return pages.device()
        auth_request = await self.devices.auth_request(code)
        if auth_request is None:
            page = pages.device(
                "No device is waiting with this code. Check the code shown on your device.", 400
            )
            return page.model_copy(update={"rejected": "device_code"})
        return await self.begin(request, auth_request)

    async def sign_in(self, request: Request) -> PageReply:
        """Handle the sign-in form: name and password, or the choice of an OpenID provider."""
        ticket = self.ticket_of(request)
        name = request.form.get("name", "")[:256]
        if issuer := request.form.get("issuer"):
            return pages.provider_link(issuer, await self.providers.start_sign_in(issuer, ticket))
        try:
            credentials = (request.form.get("password", ""), request.form.get("code", ""))
            person = await self.accounts.signed_in(name, *credentials)
        except SignInError as error:
            self._publish_denied(name if error.known else "", str(error))
            page = self._sign_in_page(ticket.auth_request, ticket.browser, str(error), 403)
            return page.model_copy(update={"rejected": "password"})
        return await self._start_session(ticket.auth_request, ticket.browser, person)

    async def returned(self, request: Request) -> PageReply:
        """Handle the redirect back from an OpenID provider."""
        departure: PendingSignIn = await self.providers.take_pending(request.query.get("state", ""))
        ticket = departure.ticket
        if request.cookies.get(BROWSER) != ticket.browser:
            raise PageError(_OTHER_BROWSER, 403)
        person = await self.providers.finish_sign_in(departure, request.page.path, request.query)
        return await self._start_session(ticket.auth_request, ticket.browser, person)

    async def consent(self, request: Request) -> PageReply:
        """Handle the consent form; each ticket is accepted once."""
        ticket = self.ticket_of(request)
        person, auth_request, answer = (
            ticket.person,
            ticket.auth_request,
            request.form.get("answer"),
        )
        if (
            person is None
            or auth_request.connect
            or auth_request.account
            or answer not in ("allow", "deny", "switch")
        ):
            raise PageError(_OTHER_BROWSER, 403)
        if not await self.brief.swap(f"ticket {ticket.id}", Used(), 0):
            raise PageError(
                "This request was already answered. Restart the sign-in from your application."
            )
        if answer == "switch":
            return self._sign_in_page(auth_request, ticket.browser)
        if auth_request.device:
            return await self._answer_device(auth_request, person, allowed=answer == "allow")
        if answer == "deny":
            return self._redirect_to_client(
                auth_request.redirect, auth_request.state, error="access_denied"
            )
        if not await self.accounts.is_current(person):
            raise PageError(_OTHER_BROWSER, 403)
        code = secrets.token_urlsafe(32)
        issued = Code(secrets.token_hex(12), auth_request, person, time() + CODE_SECONDS)
        await self.brief.put(code, issued)
        return self._redirect_to_client(auth_request.redirect, auth_request.state, code=code)

    async def account(self, request: Request) -> PageReply:
        """Show the account page."""
        return await self.begin(request, ACCOUNT)

    async def account_changed(self, request: Request) -> PageReply:
        """Handle the account form: end a grant or connection, or switch the account."""
        ticket, form = self.ticket_of(request), request.form
        person = ticket.person
        if (
            person is None
            or not ticket.auth_request.account
            or not await self.accounts.is_current(person)
        ):
            raise PageError(_OTHER_BROWSER, 403)
        if form.get("answer") == "switch":
            return self.sign_in_again(ticket)
        if "grant" in form:
            await self.access_overview.end_grant(person, form["grant"])
        elif "server" in form:
            await self.access_overview.end_connection(person, form["server"])
        return await self._signed_in_page(ACCOUNT, ticket.browser, person, "")

    def sign_in_again(self, ticket: Ticket) -> PageReply:
        """Render the sign-in form for another account."""
        return self._sign_in_page(ticket.auth_request, ticket.browser)

    # -- steps -------------------------------------------------------------------------------

    async def begin(self, request: Request, auth_request: AuthorizationRequest) -> PageReply:
        """Continue with the browser's session if it is valid, else render the sign-in form."""
        browser = request.cookies.get(BROWSER, "")
        session = self.seal.open(request.cookies.get(SESSION), Session)
        if session is not None and session.browser == browser and session.expires > time():
            person = session.person
            access = self._access_rule(auth_request, person)
            if access is not None and await self.accounts.is_current(person):
                return await self._signed_in_page(auth_request, browser, person, access)
        if len(browser) != 32 or not browser.isalnum():  # noqa: PLR2004 - the length of token_hex(16)
            browser = secrets.token_hex(16)
        return self._sign_in_page(auth_request, browser)

    async def _start_session(
        self, auth_request: AuthorizationRequest, browser: str, person: Person
    ) -> PageReply:
        access = self._access_rule(auth_request, person)
        if access is None:
            message = (
                "You are signed in, but no access rule grants you access here. Ask your operator."
            )
            return self._denied(auth_request, browser, person, message)
        if refusal := await self.plugins.refusal(person):
            return self._denied(auth_request, browser, person, f"{refusal}. Ask your operator.")
        shown = await self._signed_in_page(auth_request, browser, person, access)
        session = self.seal.close(Session(person, browser, time() + self.session_seconds))
        if len(session) > LONGEST_COOKIE - 128:
            return shown  # too large for a cookie, so this person must sign in every time
        return with_cookie(shown, f"{SESSION}={session}; {_FLAGS}")

    def _denied(
        self, auth_request: AuthorizationRequest, browser: str, person: Person, message: str
    ) -> PageReply:
        """Render the sign-in form for a person who must not have access."""
        self._publish_denied(person.user, message)
        page = self._sign_in_page(auth_request, browser, message, 403)
        return page.model_copy(update={"rejected": "no_access"})

    def _sign_in_page(
        self, auth_request: AuthorizationRequest, browser: str, message: str = "", status: int = 200
    ) -> PageReply:
        ticket = self._new_ticket(auth_request, browser, None)
        issuers = self.providers.names()
        shown = pages.sign_in(ticket, self.seal.close(ticket), issuers, message, status)
        return with_cookie(shown, f"{BROWSER}={browser}; {_FLAGS}")

    async def _signed_in_page(
        self, auth_request: AuthorizationRequest, browser: str, person: Person, access: str
    ) -> PageReply:
        """Render the page that a signed-in person requested."""
        ticket = self._new_ticket(auth_request, browser, person)
        sealed = self.seal.close(ticket)
        if auth_request.account:
            return await self.access_overview.page(person, sealed)
        if auth_request.connect:
            return pages.connect(ticket, sealed)
        permissions = scopes.descriptions(self.config().access[access], access, auth_request.scope)
        return pages.consent(ticket, sealed, permissions)

    def _access_rule(self, auth_request: AuthorizationRequest, person: Person) -> str | None:
        subject = (self.config(), person.issuer, person.claims)
        return entitled_rule(*subject, administers=auth_request.administers)

    def _new_ticket(
        self, auth_request: AuthorizationRequest, browser: str, person: Person | None
    ) -> Ticket:
        return Ticket(auth_request, browser, time() + TICKET_SECONDS, secrets.token_hex(12), person)

    def ticket_of(self, request: Request) -> Ticket:
        """Return a form's ticket. Raises `PageError` if the ticket is not for this browser."""
        if request.page.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            raise PageError(_OTHER_BROWSER, 403)
        ticket = self.seal.open(request.form.get("ticket"), Ticket)
        browser = request.cookies.get(BROWSER)
        if ticket is None or ticket.expires < time() or ticket.browser != browser:
            raise PageError(_OTHER_BROWSER, 403)
        return ticket

    async def _answer_device(
        self, auth_request: AuthorizationRequest, person: Person, *, allowed: bool
    ) -> PageReply:
        if not await self.devices.decide(auth_request.device, person, allowed=allowed):
            raise PageError(
                "No device is waiting with this code any more. Start again on the device."
            )
        result = "may now act for you" if allowed else "was denied access"
        return pages.message_page("Done", f"The device {result}. You can close this page.")

    def _redirect_to_client(self, redirect: str, state: str, **params: str) -> PageReply:
        """Redirect the browser to the client, with the issuer (RFC 9207)."""
        return redirect_response(
            redirect_uris.with_params(redirect, **params, state=state, iss=self.issuer)
        )

    def _publish_denied(self, user: str, reason: str) -> None:
        """Publish a denied sign-in, at a limited rate because anyone can cause one."""
        try:
            self.denial_limit.keep()
        except OAuthError:
            return
        event_id = f"{secrets.token_hex(12)}.refused"
        self.publish(
            SignInDenied(
                id=event_id, at=time(), customer=DEFAULT_CUSTOMER, user=user, reason=reason
            )
        )


def with_cookie(page: PageReply, cookie: str) -> PageReply:
    """Return the page with a cookie added."""
    return page.model_copy(update={"headers": (*page.headers, ("set-cookie", cookie))})
