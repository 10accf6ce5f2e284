"""The page at which somebody lets Toolbus act for them at another service. Pure."""

from toolbus_common.contracts import PageReply
from toolbus_common.web import html as webpage
from toolbus_oauth.storage.records import Ticket
from toolbus_oauth.web import pages, redirect_uris


def asked(ticket: Ticket, sealed: str) -> PageReply:
    """Who is asked, for what, and where the person is sent."""
    wish, person = ticket.wish, ticket.person
    if person is not None and person.user != wish.client_id:
        body = (
            "<p>This link is for somebody else than you: Toolbus gave it to another person's "
            f"program.</p>{_form(sealed, switch=True, allow=False)}"
        )
        return pages.page("Not your link", body, 403)
    rows = {
        "You are": person.user if person is not None else "an operator, for everybody",
        "Toolbus will use": wish.resource,
        "It asks for": wish.scope or "what the server gives by itself",
        "You agree at": redirect_uris.shown_host(wish.redirect),
    }
    body = (
        "<p>Toolbus asks to act for you at another service. Go on only if you have just used a "
        f"tool that needs it.</p>{webpage.described(rows)}"
        f"{_form(sealed, switch=person is not None)}"
    )
    return pages.page("Connect Toolbus?", body, 200, leads_on=True)


def _form(sealed: str, *, switch: bool, allow: bool = True) -> str:
    go_on = '<button class="deed" name="answer" value="allow">Go on</button>'
    buttons = f'{go_on}<button name="answer" value="deny">Do not connect</button>' if allow else ""
    if switch:
        buttons += '<button name="answer" value="switch">I am somebody else</button>'
    return (
        f'<form method="post" action="/oauth/connect">{webpage.ticket(sealed)}'
        f'<div class="choices">{buttons}</div></form>'
    )
