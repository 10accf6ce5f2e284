"""Sessions at upstream servers: their owner, executor and age."""

from time import time
from typing import Any

from toolbus_common.definitions.visible_text import printable

MAX_SHOWN = 20  # rows per server in the table
COLUMNS = ("server", "owner", "client", "executor", "opened", "last used", "calls")

Row = dict[str, Any]


def table_of(servers: list[Row], span: Any) -> list[tuple[str, ...]]:
    """Return the rows to show, at most `MAX_SHOWN` per server."""
    return [
        (
            server["name"],
            printable(each["owner"]),
            each["client"],
            each["executor"],
            f"{span(time() - each['opened_at'])} ago",
            f"{span(time() - each['used_at'])} ago",
            str(each["in_flight"]),
        )
        for server in servers
        if server.get("sessions")
        for each in server["sessions"]["sessions"][:MAX_SHOWN]
    ]


def usage_lines(servers: list[Row]) -> list[str]:
    """Return a line for each server with open sessions: their number and the limits."""
    return [
        f"{server['name']}: {pool['open']} sessions open, at most {pool['limit']} in each executor "
        f"and {pool['limit_per_principal']} for one principal "
        "(max_sessions, max_sessions_per_principal)."
        for server in servers
        if (pool := server.get("sessions")) and pool["open"]
    ]
