"""Renderer of the page on which people review and revoke access."""

from collections.abc import Sequence
from time import gmtime, strftime

from toolbus_common.contracts import PageReply
from toolbus_oauth.storage.records import Grant
from toolbus_oauth.upstreams.connections.records import Connection
from toolbus_oauth.web import pages

PATH = "/oauth/account"
MAX_SHOWN = 100


def access_page(
    user: str, sealed: str, grants: Sequence[Grant], connections: Sequence[Connection]
) -> PageReply:
    """Render a person's grants, the newest first, and connections."""
    return pages.page(
        "toolbus_oauth.account_page/account.html",
        user=user,
        ticket=sealed,
        grants=grants,
        connections=connections,
        limit=MAX_SHOWN,
        day=_day,
    )


def _day(at: float) -> str:
    return strftime("%Y-%m-%d", gmtime(at))
