"""Events in a store, and the rows of SQL and of saved queries about them."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from toolbus_audit.clickhouse.row_mapper import read, token
from toolbus_audit.clickhouse.store import ClickHouse
from toolbus_common.contracts.events.base import Event
from toolbus_common.saved_queries import catalogue as saved_queries


async def add(store: ClickHouse, events: list[Event], sequence: int = 1) -> None:
    """Store events as audit does: from the lines of a message."""
    lines = [
        b'{"event":"%b","producer":"p","seq":%d,%b' % (each.NAME.encode(), seq, each.encode()[1:])
        for seq, each in enumerate(events, 1)
    ]
    rows, dead = read("tb.event", sequence, b"\n".join(lines), "1")
    assert dead == []
    await store.insert("events", rows, token(rows))


async def query(store: ClickHouse, sql: str, **parameters: str) -> list[dict[str, Any]]:
    """Return the rows of a statement."""
    body = json.loads(await store.query(sql, 10_000, parameters))
    names = [column["name"] for column in body["meta"]]
    return [dict(zip(names, row, strict=True)) for row in body["data"]]


async def ask(store: ClickHouse, name: str, **given: str) -> list[dict[str, Any]]:
    """Return the rows of a saved query."""
    question = saved_queries.chosen(name, None)
    return await query(store, question.sql, **question.bound(given, datetime.now(UTC)))


def part(row: Mapping[str, Any], *names: str) -> tuple[Any, ...]:
    """Return the values of these columns."""
    return tuple(row[name] for name in names)
