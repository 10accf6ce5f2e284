"""What happens in a person's browser: sign in, agree or not, and be sent back."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from time import time
from typing import Protocol

from toolbus_common.config import Configuration
from toolbus_common.contracts import Event, PageReply, SignInDenied
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.crypto.sealed_tokens import TokenSealer
from toolbus_oauth.accounts.access_rules import entitling
from toolbus_oauth.accounts.local_accounts import Accounts, NotSignedInError
from toolbus_oauth.accounts.oidc_providers import Providers
from toolbus_oauth.server import scopes
from toolbus_oauth.server.authorize_request import Asking, SentBackError
from toolbus_oauth.server.device_flow import Devices
from toolbus_oauth.storage.records import Code, Departure, Person, Session, Ticket, Used, Wish
from toolbus_oauth.storage.store import Store
from toolbus_oauth.web import connect_page as pages
from toolbus_oauth.web import pages as html
from toolbus_oauth.web import redirect_uris
from toolbus_oauth.web.errors import OAuthError, PageError
from toolbus_oauth.web.rate_limit import Pace
from toolbus_oauth.web.request import Request, redirected

BROWSER, SESSION = "__Host-toolbus-browser", "__Host-toolbus-session"
_FLAGS = "Path=/; Secure; HttpOnly; SameSite=Lax"
TICKET_SECONDS = 600.0
CODE_SECONDS = 60.0
LONGEST_COOKIE = 4096
MOST_REFUSALS = 60  # that are recorded in a minute
ACCOUNT = Wish("", "Toolbus", "", "", "", "", "", registered=False, account=True)
_NOT_YOURS = "This page belongs to another browser, or is too old. Begin anew in the program."


class AccountPage(Protocol):
    """The page on which people see, and end, what they allowed."""

    async def page(self, person: Person, sealed: str) -> PageReply:
        """Show what a person allowed; `sealed` is the ticket that its form sends back."""
        ...

    async def end_grant(self, person: Person, grant_id: str) -> None:
        """Revoke what a program may do for a person. Raises `PageError`: it is not theirs."""
        ...

    async def end_connection(self, person: Person, server: str) -> None:
        """Stop calling a server with a person's token. Raises `PageError` likewise."""
        ...


@dataclass(slots=True)
class Browsing:
    """The pages, and what their forms do."""

    issuer: str
    seal: TokenSealer
    brief: Store
    asking: Asking
    accounts: Accounts
    devices: Devices
    providers: Providers
    declared: Callable[[], Configuration]
    say: Callable[[Event], None]
    session_seconds: float
    holdings: AccountPage
    refusals: Pace = field(default_factory=lambda: Pace(MOST_REFUSALS))

    async def authorize(self, request: Request) -> PageReply:
        """A client sends a browser here."""
        try:
            wish = await self.asking.wish(request.query)
        except SentBackError as refusal:
            told = {"error": refusal.error.code, "error_description": refusal.error.sentence}
            return self._back(refusal.redirect, refusal.state, **told)
        except OAuthError as error:
            raise PageError(error.sentence) from error
        return await self.begin(request, wish)

    async def device(self, request: Request) -> PageReply:
        """A person brings the code a device shows."""
        code = request.query.get("user_code", "")
        if not code:
            return html.device()
        wish = await self.devices.wish(code)
        if wish is None:
            page = html.device("No device waits with this code.", 400)
            return page.model_copy(update={"rejected": "device_code"})
        return await self.begin(request, wish)

    async def sign_in(self, request: Request) -> PageReply:
        """The form with name and password, or with another issuer's name."""
        ticket = self.ticket_of(request)
        name = request.form.get("name", "")[:256]
        if issuer := request.form.get("issuer"):
            return html.leaving(issuer, await self.providers.departure(issuer, ticket))
        try:
            told = (request.form.get("password", ""), request.form.get("code", ""))
            person = await self.accounts.signed_in(name, *told)
        except NotSignedInError as error:
            self._say_refused(name if error.known else "", str(error))
            page = self._sign_in_page(ticket.wish, ticket.browser, str(error), 403)
            return page.model_copy(update={"rejected": "password"})
        return await self._signed_in(ticket.wish, ticket.browser, person)

    async def returned(self, request: Request) -> PageReply:
        """An OpenID provider sends a browser back."""
        departure: Departure = await self.providers.departed(request.query.get("state", ""))
        ticket = departure.ticket
        if request.cookies.get(BROWSER) != ticket.browser:
            raise PageError(_NOT_YOURS, 403)
        person = await self.providers.arrived(departure, request.asked.path, request.query)
        return await self._signed_in(ticket.wish, ticket.browser, person)

    async def consent(self, request: Request) -> PageReply:
        """The form with yes and no."""
        ticket = self.ticket_of(request)
        person, wish, answer = ticket.person, ticket.wish, request.form.get("answer")
        if (
            person is None
            or wish.connect
            or wish.account
            or answer not in ("allow", "deny", "switch")
        ):
            raise PageError(_NOT_YOURS, 403)
        if not await self.brief.swap(f"ticket {ticket.id}", Used(), 0):
            raise PageError("This was answered already. Begin anew in the program.")
        if answer == "switch":
            return self._sign_in_page(wish, ticket.browser)
        if wish.device:
            return await self._tell_device(wish, person, allowed=answer == "allow")
        if answer == "deny":
            return self._back(wish.redirect, wish.state, error="access_denied")
        if not await self.accounts.stands(person):
            raise PageError(_NOT_YOURS, 403)
        code = secrets.token_urlsafe(32)
        kept = Code(secrets.token_hex(12), wish, person, time() + CODE_SECONDS)
        await self.brief.put(code, kept)
        return self._back(wish.redirect, wish.state, code=code)

    async def account(self, request: Request) -> PageReply:
        """Somebody wants to see what they allowed."""
        return await self.begin(request, ACCOUNT)

    async def account_changed(self, request: Request) -> PageReply:
        """The form with a button for each."""
        ticket, form = self.ticket_of(request), request.form
        person = ticket.person
        if person is None or not ticket.wish.account or not await self.accounts.stands(person):
            raise PageError(_NOT_YOURS, 403)
        if form.get("answer") == "switch":
            return self.sign_in_again(ticket)
        if "grant" in form:
            await self.holdings.end_grant(person, form["grant"])
        elif "server" in form:
            await self.holdings.end_connection(person, form["server"])
        return await self._shown(ACCOUNT, ticket.browser, person, "")

    def sign_in_again(self, ticket: Ticket) -> PageReply:
        """For somebody who is not who the browser says."""
        return self._sign_in_page(ticket.wish, ticket.browser)

    # -- steps -------------------------------------------------------------------------------

    async def begin(self, request: Request, wish: Wish) -> PageReply:
        """Find out who is there, then ask them."""
        browser = request.cookies.get(BROWSER, "")
        session = self.seal.open(request.cookies.get(SESSION), Session)
        if session is not None and session.browser == browser and session.expires > time():
            person = session.person
            access = self._entitling(wish, person)
            if access is not None and await self.accounts.stands(person):
                return await self._shown(wish, browser, person, access)
        if len(browser) != 32 or not browser.isalnum():  # noqa: PLR2004 - what we give
            browser = secrets.token_hex(16)
        return self._sign_in_page(wish, browser)

    async def _signed_in(self, wish: Wish, browser: str, person: Person) -> PageReply:
        access = self._entitling(wish, person)
        if access is None:
            sentence = "You are who you say, but no rule grants you anything here."
            self._say_refused(person.user, sentence)
            page = self._sign_in_page(wish, browser, sentence, 403)
            return page.model_copy(update={"rejected": "no_access"})
        shown = await self._shown(wish, browser, person, access)
        session = self.seal.close(Session(person, browser, time() + self.session_seconds))
        if len(session) > LONGEST_COOKIE - 128:
            return shown  # too many claims to carry: this person signs in every time
        return with_cookie(shown, f"{SESSION}={session}; {_FLAGS}")

    def _sign_in_page(
        self, wish: Wish, browser: str, sentence: str = "", status: int = 200
    ) -> PageReply:
        ticket = self._made(wish, browser, None)
        issuers = self.providers.names()
        shown = html.sign_in(ticket, self.seal.close(ticket), issuers, sentence, status)
        return with_cookie(shown, f"{BROWSER}={browser}; {_FLAGS}")

    async def _shown(self, wish: Wish, browser: str, person: Person, access: str) -> PageReply:
        """What somebody who signed in came for."""
        ticket = self._made(wish, browser, person)
        sealed = self.seal.close(ticket)
        if wish.account:
            return await self.holdings.page(person, sealed)
        if wish.connect:
            return pages.asked(ticket, sealed)
        told = scopes.sentences(self.declared().access[access], access, wish.scope)
        return html.consent(ticket, sealed, told)

    def _entitling(self, wish: Wish, person: Person) -> str | None:
        about = (self.declared(), person.issuer, person.claims)
        return entitling(*about, administers=wish.administers)

    def _made(self, wish: Wish, browser: str, person: Person | None) -> Ticket:
        return Ticket(wish, browser, time() + TICKET_SECONDS, secrets.token_hex(12), person)

    def ticket_of(self, request: Request) -> Ticket:
        """The ticket of a form, sent by the browser that was shown it. Raises `PageError`."""
        if request.asked.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            raise PageError(_NOT_YOURS, 403)
        ticket = self.seal.open(request.form.get("ticket"), Ticket)
        browser = request.cookies.get(BROWSER)
        if ticket is None or ticket.expires < time() or ticket.browser != browser:
            raise PageError(_NOT_YOURS, 403)
        return ticket

    async def _tell_device(self, wish: Wish, person: Person, *, allowed: bool) -> PageReply:
        if not await self.devices.decide(wish.device, person, allowed=allowed):
            raise PageError("No device waits with this code any longer.")
        said = "may act for you now" if allowed else "was told no"
        return html.ended("Done", f"The device {said}. You can close this page.")

    def _back(self, redirect: str, state: str, **told: str) -> PageReply:
        """Send the browser to the client, with who says so (RFC 9207)."""
        return redirected(redirect_uris.extended(redirect, **told, state=state, iss=self.issuer))

    def _say_refused(self, user: str, reason: str) -> None:
        """Anybody may be refused as often as they like: what is recorded of it is bounded."""
        try:
            self.refusals.keep()
        except OAuthError:
            return
        event_id = f"{secrets.token_hex(12)}.refused"
        self.say(
            SignInDenied(
                id=event_id, at=time(), customer=DEFAULT_CUSTOMER, user=user, reason=reason
            )
        )


def with_cookie(told: PageReply, cookie: str) -> PageReply:
    """The same page, and something for the browser to keep."""
    return told.model_copy(update={"headers": (*told.headers, ("set-cookie", cookie))})
