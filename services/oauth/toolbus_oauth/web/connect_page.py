"""Render the page on which a person connects an upstream server's account. Pure."""

from toolbus_common.contracts import PageReply
from toolbus_common.web import html as webpage
from toolbus_oauth.storage.records import Ticket
from toolbus_oauth.web import pages, redirect_uris


def confirmation(ticket: Ticket, sealed: str) -> PageReply:
    """Render who signed in, the requested scopes and the address that the person is sent to."""
    auth_request, person = ticket.auth_request, ticket.person
    if person is not None and person.user != auth_request.client_id:
        body = (
            "<p>This link was made for another person. Sign in as that person, or call the tool "
            f"again for a link of your own.</p>{_form(sealed, switch=True, allow=False)}"
        )
        return pages.page("This link is for another person", body, 403)
    rows = {
        "Signed in as": person.user if person is not None else "an operator, for all users",
        "Server": auth_request.resource,
        "Requested scopes": auth_request.scope or "the server's default scopes",
        "You approve at": redirect_uris.display_host(auth_request.redirect),
    }
    body = (
        "<p>Toolbus asks for access to your account at another service. Continue only if you have "
        f"just used a tool that needs it.</p>{webpage.described(rows)}"
        f"{_form(sealed, switch=person is not None)}"
    )
    return pages.page("Connect Toolbus?", body, 200, leads_on=True)


def _form(sealed: str, *, switch: bool, allow: bool = True) -> str:
    proceed = '<button class="deed" name="answer" value="allow">Continue</button>'
    buttons = (
        f'{proceed}<button name="answer" value="deny">Do not connect</button>' if allow else ""
    )
    if switch:
        buttons += '<button name="answer" value="switch">Sign in as someone else</button>'
    return (
        f'<form method="post" action="/oauth/connect">{webpage.ticket(sealed)}'
        f'<div class="choices">{buttons}</div></form>'
    )
