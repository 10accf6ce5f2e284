"""Sessions at upstream servers, joined from the replies of all executors (no I/O)."""

from collections.abc import Iterable
from typing import Any

from toolbus_common.contracts import SessionsReply

Row = dict[str, Any]


def with_sessions(servers: list[Row], replies: Iterable[SessionsReply]) -> list[Row]:
    """Return the servers, each with its sessions in all executors."""
    answers = list(replies)
    return [{**row, "sessions": _whole(row, answers)} for row in servers]


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
