"""The page on which people see what they allowed, and end it: HTML without a script. Pure."""

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


def shown(
    user: str, sealed: str, grants: Sequence[Grant], connections: Sequence[Connection]
) -> PageReply:
    """What somebody allowed."""
    programs = _list(map(_grant, grants[:MOST_SHOWN]), "No program acts for you.")
    services = _list(map(_connection, connections[:MOST_SHOWN]), "No service is connected.")
    more = "" if len(grants) <= MOST_SHOWN else f"<p>The newest {MOST_SHOWN} are shown.</p>"
    body = (
        f"<p>You are <strong>{_text(user)}</strong>. What you end here ends in seconds; a program "
        f'that wants it again has to ask you.</p><form method="post" action="{PATH}">'
        f"{webpage.ticket(sealed)}<h2>Programs that may act for you</h2>{programs}{more}"
        f"<h2>Services that Toolbus uses in your name</h2>{services}"
        '<div class="choices"><button name="answer" value="switch">I am somebody else</button>'
        "</div></form>"
    )
    return html.page("What you allowed", body, 200)


def _grant(grant: Grant) -> str:
    name = _text(grant.client or grant.client_id)
    told = f"{grant.scope} at {grant.resource}, {_day(grant.made)} to {_day(grant.ends)}"
    return _item(name, told, "grant", grant.id)


def _connection(connection: Connection) -> str:
    asked = " ".join(connection.scopes) or "no scope named"
    told = f"{asked}, since {_day(connection.made)}"
    return _item(_text(connection.server), told, "server", connection.server)


def _item(name: str, told: str, kind: str, value: str) -> str:
    button = f'<button name="{kind}" value="{escape(value)}" aria-label="End {name}">End</button>'
    return f"<dt>{name}</dt><dd>{_text(told)}<br>{button}</dd>"


def _list(items: Iterable[str], none: str) -> str:
    told = "".join(items)
    return f"<dl>{told}</dl>" if told else f"<p>{none}</p>"


def _text(value: str) -> str:
    return escape(visible(value))


def _day(at: float) -> str:
    return strftime("%Y-%m-%d", gmtime(at))
