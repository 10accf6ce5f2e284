"""Render the page on which people review and revoke access: HTML without scripts. Pure."""

from collections.abc import Iterable, Sequence
from html import escape
from time import gmtime, strftime

from toolbus_common.contracts import PageReply
from toolbus_common.web import html as webpage
from toolbus_common.web.json_view import visible
from toolbus_oauth.storage.records import Grant
from toolbus_oauth.upstreams.connections.records import Connection
from toolbus_oauth.web import pages as html

PATH = "/oauth/account"
MOST_SHOWN = 100


def access_page(
    user: str, sealed: str, grants: Sequence[Grant], connections: Sequence[Connection]
) -> PageReply:
    """Render a person's grants and connections."""
    programs = _list(map(_grant, grants[:MOST_SHOWN]), "No program can act for you.")
    services = _list(map(_connection, connections[:MOST_SHOWN]), "No service is connected.")
    more = "" if len(grants) <= MOST_SHOWN else f"<p>The newest {MOST_SHOWN} are shown.</p>"
    body = (
        f"<p>You are signed in as <strong>{_text(user)}</strong>. Access that you end here stops "
        "within seconds. A program must ask you again to get it back.</p>"
        f'<form method="post" action="{PATH}">{webpage.ticket(sealed)}'
        f"<h2>Programs that may act for you</h2>{programs}{more}"
        f"<h2>Services that Toolbus uses on your behalf</h2>{services}"
        '<div class="choices"><button name="answer" value="switch">Sign in as someone else</button>'
        "</div></form>"
    )
    return html.page("Access you allowed", body, 200)


def _grant(grant: Grant) -> str:
    name = _text(grant.client or grant.client_id)
    details = f"{grant.scope} at {grant.resource}, {_day(grant.made)} to {_day(grant.ends)}"
    return _item(name, details, "grant", grant.id)


def _connection(connection: Connection) -> str:
    scopes = " ".join(connection.scopes) or "default scopes"
    details = f"{scopes}, since {_day(connection.made)}"
    return _item(_text(connection.server), details, "server", connection.server)


def _item(name: str, details: str, kind: str, value: str) -> str:
    button = f'<button name="{kind}" value="{escape(value)}" aria-label="End {name}">End</button>'
    return f"<dt>{name}</dt><dd>{_text(details)}<br>{button}</dd>"


def _list(items: Iterable[str], none: str) -> str:
    rows = "".join(items)
    return f"<dl>{rows}</dl>" if rows else f"<p>{none}</p>"


def _text(value: str) -> str:
    return escape(visible(value))


def _day(at: float) -> str:
    return strftime("%Y-%m-%d", gmtime(at))
