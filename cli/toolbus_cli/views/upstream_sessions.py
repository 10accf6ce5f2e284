"""Sessions at upstream servers: their owner, executor and age."""

from collections.abc import Iterable
from time import time
from typing import Any

from toolbus_cli.views.visible_text import printable
from toolbus_common.contracts import SessionsReply

MAX_SHOWN = 20  # rows per server in the table
COLUMNS = ("server", "owner", "client", "executor", "opened", "last used", "calls")

Row = dict[str, Any]


def with_sessions(servers: list[Row], replies: Iterable[SessionsReply]) -> list[Row]:
    """Return the servers, each with its sessions in all executors."""
    answers = list(replies)
    return [{**row, "sessions": _whole(row, answers)} for row in servers]


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


def _whole(row: Row, answers: list[SessionsReply]) -> Row | None:
    parts = [
        (each.instance, each.servers[row["name"]])
        for each in answers
        if row["name"] in each.servers
    ]
    if not parts:
        return None
    sessions = [
        {**one, "executor": instance} for instance, part in parts for one in part["sessions"]
    ]
    return {
        **parts[0][1],
        "open": sum(part["open"] for _, part in parts),
        "sessions": sorted(sessions, key=lambda each: -each["used_at"]),
    }
