"""The pages people see: HTML without a script, each form with a ticket for one browser. Pure."""

from collections.abc import Iterable
from html import escape

from toolbus_common.access.oauth_scopes import ADMINISTER
from toolbus_common.contracts import PageReply
from toolbus_common.web import html as webpage
from toolbus_common.web.json_view import visible
from toolbus_oauth.storage.records import Ticket
from toolbus_oauth.web.redirect_uris import is_local, shown_host


def sign_in(
    ticket: Ticket, sealed: str, issuers: Iterable[str], sentence: str = "", status: int = 200
) -> PageReply:
    """Name and password, or another issuer."""
    others = "".join(
        f'<button name="issuer" value="{escape(name)}" formnovalidate>Sign in with '
        f"{escape(name)}</button>"
        for name in issuers
    )
    body = (
        f"{webpage.refusal(sentence)}<p>{_why(ticket)}</p>"
        f'<form method="post" action="/oauth/sign-in">{webpage.ticket(sealed)}'
        '<label>Name<input name="name" autocomplete="username" required autofocus></label>'
        '<label>Password<input name="password" type="password" autocomplete="current-password" '
        "required></label>"
        '<label>Code, if your account wants one<input name="code" inputmode="numeric" '
        'autocomplete="one-time-code"></label>'
        '<div class="choices"><button class="deed">Sign in</button></div>'
        f"{_or(others)}</form>"
    )
    return page("Sign in", body, status)


def leaving(issuer: str, url: str) -> PageReply:
    """On to another issuer: a link, since a form may not lead to wherever that sends people."""
    onward = f'<meta http-equiv="refresh" content="0;url={escape(url)}">'
    link = f'<p><a href="{escape(url)}">Go on to {escape(issuer)}</a></p>'
    return page("Sign in", link, 200, head=onward)


def consent(ticket: Ticket, sealed: str, lets: Iterable[str]) -> PageReply:
    """Who asks, for what, and where the answer goes. `lets` are sentences: what they may do."""
    wish = ticket.wish
    user = ticket.person.user if ticket.person is not None else ""
    where = shown_host(wish.redirect) if wish.redirect else "the device with your code"
    rows = {
        "You are": user,
        "It may": f"{'; '.join(lets)}; at {wish.resource}",
        "Your answer goes to": where,
    }
    body = (
        f"<p>{_client(ticket)} asks to act for you.</p>{_warning(ticket)}"
        f'{webpage.described(rows)}<form method="post" action="/oauth/consent">'
        f'{webpage.ticket(sealed)}<div class="choices">'
        '<button class="deed" name="answer" value="allow">Allow</button>'
        '<button name="answer" value="deny">Deny</button>'
        '<button name="answer" value="switch">I am somebody else</button></div></form>'
    )
    return page("Allow this program?", body, 200, leads_on=bool(wish.redirect))


def device(sentence: str = "", status: int = 200) -> PageReply:
    """Where a person enters the code a device shows."""
    body = (
        f"{webpage.refusal(sentence)}<p>Enter the code your device shows, if you started this "
        "yourself.</p>"
        '<form method="get" action="/oauth/device"><label>Code<input name="user_code" '
        'autocomplete="off" autocapitalize="characters" required autofocus></label>'
        '<div class="choices"><button class="deed">Go on</button></div></form>'
    )
    return page("Connect a device", body, status)


def ended(title: str, sentence: str, status: int = 200) -> PageReply:
    """There is nothing more to do here."""
    return page(title, f"<p>{escape(sentence)}</p>", status)


def page(
    title: str, body: str, status: int, head: str = "", *, leads_on: bool = False
) -> PageReply:
    """A page; `leads_on`: the answer to its form may send the browser elsewhere."""
    document = webpage.document(title, body, head)
    return PageReply(status=status, headers=webpage.headers(leads_on=leads_on), body=document)


def _or(others: str) -> str:
    return f'<p class="or">or</p><div class="choices">{others}</div>' if others else ""


def _why(ticket: Ticket) -> str:
    if ticket.wish.account:
        return "Sign in to see what you allowed, and to end it."
    return f"{_client(ticket)} asks to act for you."


def _client(ticket: Ticket) -> str:
    wish = ticket.wish
    return f"<strong>{escape(visible(wish.client or wish.client_id))}</strong>"


def _warning(ticket: Ticket) -> str:
    wish, told = ticket.wish, []
    if wish.registered:
        told.append("Nobody but the program itself says that this is its name.")
    if wish.redirect and is_local(wish.redirect):
        told.append(
            "The answer goes to a program on the machine of whoever opened this page: go on only "
            "if you have just started it yourself."
        )
    if ADMINISTER in wish.scope.split():
        told.append("It can change what Toolbus lets people and programs do.")
    if wish.device:
        told.append(f"Go on only if your own device shows the code {wish.device}.")
    return "".join(map(webpage.warning, told))
