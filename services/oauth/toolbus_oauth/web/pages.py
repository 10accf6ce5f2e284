"""Render the pages that people see: HTML without scripts, each form bound to one browser. Pure."""

from collections.abc import Iterable
from html import escape

from toolbus_common.access.oauth_scopes import ADMINISTER
from toolbus_common.contracts import PageReply
from toolbus_common.web import html as webpage
from toolbus_common.web.json_view import visible
from toolbus_oauth.storage.records import Ticket
from toolbus_oauth.web.redirect_uris import display_host, is_local


def sign_in(
    ticket: Ticket, sealed: str, issuers: Iterable[str], message: str = "", status: int = 200
) -> PageReply:
    """Render the form with name and password, and a button for each OpenID provider."""
    others = "".join(
        f'<button name="issuer" value="{escape(name)}" formnovalidate>Sign in with '
        f"{escape(name)}</button>"
        for name in issuers
    )
    body = (
        f"{webpage.refusal(message)}<p>{_why(ticket)}</p>"
        f'<form method="post" action="/oauth/sign-in">{webpage.ticket(sealed)}'
        '<label>Name<input name="name" autocomplete="username" required autofocus></label>'
        '<label>Password<input name="password" type="password" autocomplete="current-password" '
        "required></label>"
        '<label>One-time code, if your account uses one<input name="code" inputmode="numeric" '
        'autocomplete="one-time-code"></label>'
        '<div class="choices"><button class="deed">Sign in</button></div>'
        f"{_or(others)}</form>"
    )
    return page("Sign in", body, status)


def provider_link(issuer: str, url: str) -> PageReply:
    """Render the link to an OpenID provider.

    It is a link because the page's `form-action` would block the redirects after a form.
    """
    onward = f'<meta http-equiv="refresh" content="0;url={escape(url)}">'
    link = f'<p><a href="{escape(url)}">Continue to {escape(issuer)}</a></p>'
    return page("Sign in", link, 200, head=onward)


def consent(ticket: Ticket, sealed: str, permissions: Iterable[str]) -> PageReply:
    """Render who asks, for what, and where the answer is sent.

    `lets` describe what the client may do.
    """
    auth_request = ticket.auth_request
    user = ticket.person.user if ticket.person is not None else ""
    where = (
        display_host(auth_request.redirect)
        if auth_request.redirect
        else "the device that shows your code"
    )
    rows = {
        "Signed in as": user,
        "It may": f"{'; '.join(permissions)}; at {auth_request.resource}",
        "Your answer is sent to": where,
    }
    body = (
        f"<p>{_client(ticket)} asks to act for you.</p>{_warning(ticket)}"
        f'{webpage.described(rows)}<form method="post" action="/oauth/consent">'
        f'{webpage.ticket(sealed)}<div class="choices">'
        '<button class="deed" name="answer" value="allow">Allow</button>'
        '<button name="answer" value="deny">Deny</button>'
        '<button name="answer" value="switch">Sign in as someone else</button></div></form>'
    )
    return page("Allow this program?", body, 200, leads_on=bool(auth_request.redirect))


def device(message: str = "", status: int = 200) -> PageReply:
    """Render the form for the code that a device shows."""
    body = (
        f"{webpage.refusal(message)}<p>Enter the code your device shows. Continue only if "
        "you started this yourself.</p>"
        '<form method="get" action="/oauth/device"><label>Code<input name="user_code" '
        'autocomplete="off" autocapitalize="characters" required autofocus></label>'
        '<div class="choices"><button class="deed">Continue</button></div></form>'
    )
    return page("Connect a device", body, status)


def message_page(title: str, message: str, status: int = 200) -> PageReply:
    """Render a page with a message and no action."""
    return page(title, f"<p>{escape(message)}</p>", status)


def page(
    title: str, body: str, status: int, head: str = "", *, leads_on: bool = False
) -> PageReply:
    """Render a page; with `leads_on` the answer to its form may redirect to another site."""
    document = webpage.document(title, body, head)
    return PageReply(status=status, headers=webpage.headers(leads_on=leads_on), body=document)


def _or(others: str) -> str:
    return f'<p class="or">or</p><div class="choices">{others}</div>' if others else ""


def _why(ticket: Ticket) -> str:
    if ticket.auth_request.account:
        return "Sign in to review and revoke the access you allowed."
    return f"{_client(ticket)} asks to act for you."


def _client(ticket: Ticket) -> str:
    auth_request = ticket.auth_request
    return f"<strong>{escape(visible(auth_request.client or auth_request.client_id))}</strong>"


def _warning(ticket: Ticket) -> str:
    auth_request, warnings = ticket.auth_request, []
    if auth_request.registered:
        warnings.append("The program chose this name itself. No operator has confirmed it.")
    if auth_request.redirect and is_local(auth_request.redirect):
        warnings.append(
            "Your answer is sent to a program on this computer. Continue only if you have just "
            "started that program yourself."
        )
    if ADMINISTER in auth_request.scope.split():
        warnings.append("It can change what people and programs are allowed to do in Toolbus.")
    if auth_request.device:
        warnings.append(f"Continue only if your own device shows the code {auth_request.device}.")
    return "".join(map(webpage.warning, warnings))
