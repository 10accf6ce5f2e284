"""Inserts into a real ClickHouse engine: complete, once, and rejected row by row."""

import json
from typing import Any

import msgspec
import pytest

from harness.audit.sample_events import event as sample
from toolbus_audit.clickhouse.errors import RowsRejectedError
from toolbus_audit.clickhouse.row_mapper import read, token
from toolbus_audit.clickhouse.store import ClickHouse
from toolbus_common.contracts import EVENTS, ModelUsed
from toolbus_common.contracts.events.base import CallEvent
from toolbus_common.saved_queries import catalogue as saved_queries


async def test_a_repeated_insert_is_stored_once_without_a_query(store: ClickHouse) -> None:
    line = b'{"event":"f","producer":"p","seq":1,"id":"%d","at":1763708342.5,"customer":"a"}'
    found, dead = read("tb.event.f.a", 1, b"\n".join([line % 1, b"{not json", line % 2]))
    for _ in range(3):
        await store.insert("events", found, token(found))
        await store.insert("dead_letters", dead, token(dead))
    counted = "SELECT (SELECT count() FROM events), (SELECT count() FROM dead_letters)"
    assert await store._in_write_thread(store._rows, counted) == [(2, 1)]


async def test_a_repeated_insert_of_many_megabytes_is_stored_completely_and_once(
    store: ClickHouse,
) -> None:
    rest = f'"producer":"p","seq":1,"at":1763708342.5,"customer":"a","arguments":"{"x" * 900}"'
    lines = [f'{{"event":"call.allowed","id":"{n}",{rest}}}'.encode() for n in range(9000)]
    found, _ = read("tb.event.call.allowed.a", 1, b"\n".join(lines))
    for _ in range(2):
        await store.insert("events", found, token(found))
    counted = "SELECT count(), uniqExact(id), sum(length(detail)) FROM events"
    assert await store._in_write_thread(store._rows, counted) == [
        (9000, 9000, sum(map(len, lines)))
    ]


async def test_a_value_outside_a_column_is_a_rejected_row_and_not_an_outage(
    store: ClickHouse,
) -> None:
    (row,), _ = read(
        "s", 1, b'{"event":"f","producer":"p","seq":1,"id":"i","at":1.5,"customer":"a"}'
    )
    row.charge = 2**63
    with pytest.raises(RowsRejectedError, match="charge"):
        await store.insert("events", [row], "token")


async def test_bytes_of_calls_are_read_from_the_event_itself(store: ClickHouse) -> None:
    names = ("arguments_bytes", "sent_bytes", "whole_bytes", "result_bytes")
    nested = json.dumps({"arguments": json.dumps(dict.fromkeys(names, 9))})
    texts = {  # the caller's text and the names of tools are strings of the event
        "arguments": nested,
        "result": "".join(f'"{name}":9,' for name in names),
        "tool": r'\","arguments_bytes":9,"sent_bytes":9,"' + "\\",
        "shadow": names,
    }
    quoted = json.dumps(texts, separators=(",", ":"))[1:-1]
    rest = '"producer":"p","seq":1,"at":1763708342.5,"customer":"a"'
    fields = {
        "1": ("call.allowed", f'{quoted},"arguments_bytes":5'),
        "2": ("call.completed", f'{quoted},"result_bytes":7,"sent_bytes":3,"whole_bytes":8'),
        "3": ("call.completed", f'{quoted},"result_bytes":7'),
        "4": ("call.failed", f'{quoted},"arguments_bytes":5'),
        "5": ("call.allowed", quoted),
    }
    lines = [f'{{"event":"{e}","id":"{n}",{rest},{more}}}' for n, (e, more) in fields.items()]
    found, _ = read("s", 1, "\n".join(lines).encode())
    await store.insert("events", found, token(found))
    counted = "SELECT id, sent_bytes, whole_bytes FROM events ORDER BY id"
    assert await store._in_write_thread(store._rows, counted) == [
        ("1", 5, 5), ("2", 3, 8), ("3", 7, 7), ("4", 0, 0), ("5", 0, 0),
    ]  # fmt: skip


async def rows_of(store: ClickHouse, sql: str, **parameters: str) -> list[dict[str, Any]]:
    body = json.loads(await store.query(sql, 10_000, parameters))
    names = [column["name"] for column in body["meta"]]
    return [dict(zip(names, row, strict=True)) for row in body["data"]]


async def test_an_event_of_every_kind_is_stored_with_all_its_fields(store: ClickHouse) -> None:
    lines = [msgspec.json.encode(sample(name, id=name)) for name in EVENTS]
    rows, dead = read("tb.event", 1, b"\n".join(lines))
    assert dead == []
    await store.insert("events", rows, token(rows))
    found = await rows_of(store, "SELECT event, id, detail FROM events ORDER BY line")
    assert [each["id"] for each in found] == list(EVENTS)
    assert [each["detail"].encode() for each in found] == lines


async def test_every_event_about_a_call_is_found_by_the_calls_id(store: ClickHouse) -> None:
    names = [name for name, kind in EVENTS.items() if issubclass(kind, CallEvent)]
    assert ModelUsed.NAME in names
    lines = [msgspec.json.encode(sample(name, id=name, call_id="one")) for name in names]
    rows, _ = read("tb.event", 1, b"\n".join(lines))
    await store.insert("events", rows, token(rows))
    question = saved_queries.chosen("one-call", None)
    found = await rows_of(store, question.sql, call="one")
    assert sorted(each["event"] for each in found) == sorted(names)
