"""The file of events: what it stores, and what a statement may do."""

import asyncio
import sqlite3
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from toolbus_audit.clickhouse.errors import StoreDownError
from toolbus_audit.clickhouse.row_mapper import CheckpointRow, read, token
from toolbus_audit.events_file import store as events_store
from toolbus_audit.events_file.moved_rows import MovedRows
from toolbus_audit.events_file.store import EventsFile
from toolbus_audit.settings import Settings
from toolbus_common.errors import InvalidError


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[EventsFile]:
    store = EventsFile(
        Settings(state_dir=tmp_path, events_file=tmp_path / "events.db", audit_query_seconds=0.2)
    )
    await store.open()
    yield store
    await store.close()


def lines(*call_ids: str) -> bytes:
    common = {"event": "call.completed", "at": 1_700_000_000.999999, "producer": "p"}
    common["customer"] = "acme"
    return b"\n".join(
        msgspec.json.encode(
            {**common, "id": f"{each}.completed", "seq": number, "call_id": each,
             "shadow": ["one", "two"], "is_error": True, "charge": -5}
        )
        for number, each in enumerate(call_ids)
    )  # fmt: skip


async def insert(store: EventsFile, sequence: int, data: bytes) -> None:
    events, dead = read("tb.event.call.completed.acme", sequence, data, "1")
    await store.insert("events", events, token(events))
    if dead:
        await store.insert("dead_letters", dead, token(dead))


async def test_rows_are_stored_once_and_read_back_as_they_were(store: EventsFile) -> None:
    data = lines("a", "b") + b"\nnot JSON"
    for _ in range(2):
        await insert(store, 7, data)
    rows, dead = read("tb.event.call.completed.acme", 7, data, "1")
    moved = MovedRows(store.path)
    try:
        assert moved.events("1", 0, 10) == rows
        assert moved.events("1", 7, 10) == []
        assert [each.position for each in moved.dead_letters()] == [dead[0].position]
        assert moved.newest() == {"1": 7}
    finally:
        moved.close()
    positions = {each.position for each in rows} | {dead[0].position}
    assert await store.stored([6, 7, 8]) == positions
    assert (await store.last_sequence(), await store.dead_letters()) == (7, 1)


async def test_checkpoints_are_read_back_as_they_were(store: EventsFile) -> None:
    row = CheckpointRow("acme", "1", 5, 1_700_000_000, 9, ("a", "b"), "note\n")
    await store.insert("checkpoints", [row], "token")
    moved = MovedRows(store.path)
    assert moved.signed() == [("checkpoints", [row])]
    moved.close()


async def test_the_time_is_text_in_utc_that_is_never_rounded_up(store: EventsFile) -> None:
    await insert(store, 1, lines("a"))
    found = msgspec.json.decode(await store.query("SELECT at FROM events", 1))
    assert found == {"meta": [{"name": "at"}], "data": [["2023-11-14 22:13:20.999999"]]}


async def test_the_search_for_the_events_of_a_person_is_answered(store: EventsFile) -> None:
    await insert(store, 1, lines("a", "b"))
    sql = "SELECT call_id FROM events WHERE user = 'x' OR (event NOT LIKE 'context.%' AND {})"
    found = await store.query(sql.format("position(detail, 'b.completed') > 0"), 10)
    assert msgspec.json.decode(found)["data"] == [["b"]]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM event_rows",
        "ATTACH DATABASE '/tmp/other' AS other",
        "PRAGMA journal_mode = DELETE",
        "SELECT load_extension('x')",
        "CREATE TABLE x (y)",
        "VACUUM INTO '/tmp/copy'",
        "SELECT 1; DELETE FROM event_rows",
        "SELECT {missing:String}",
        "SELECT toStartOfHour(at) FROM events",
    ],
)
async def test_a_statement_can_only_read(store: EventsFile, statement: str) -> None:
    await insert(store, 1, lines("a"))
    with pytest.raises(InvalidError, match="start it with 'toolbus up', without --lite"):
        await store.query(statement, 10)
    assert await store.rows("SELECT count(*) FROM event_rows") == [(1,)]


async def test_an_endless_statement_is_ended(store: EventsFile) -> None:
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"
    async with asyncio.timeout(30):
        with pytest.raises(InvalidError, match=r"ended after 0\.2 s; select fewer rows"):
            await store.query(endless, 10)
    assert await store.query("SELECT 1 AS one", 10) == b'{"meta":[{"name":"one"}],"data":[[1]]}'


async def test_a_result_is_not_collected_beyond_its_limit(tmp_path: Path) -> None:
    store = EventsFile(Settings(state_dir=tmp_path, events_file=tmp_path / "events.db"))
    await store.open()
    large = (
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 40)"
        " SELECT printf('%.4000000c', 'a') FROM n"
    )
    tracemalloc.start()
    try:
        with pytest.raises(InvalidError, match="exceeds 6 MiB; select fewer rows"):
            await store.query(large, 100)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
        await store.close()


async def test_a_file_of_a_newer_version_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    store = EventsFile(Settings(state_dir=tmp_path, events_file=path))
    with pytest.raises(StoreDownError, match="a newer version of Toolbus"):
        await store.open()
    await store.close()


async def test_a_file_whose_reader_could_not_be_opened_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_reader(_path: Path) -> sqlite3.Connection:
        raise sqlite3.OperationalError("too many open files")

    store = EventsFile(Settings(state_dir=tmp_path, events_file=tmp_path / "events.db"))
    with monkeypatch.context() as patched:
        patched.setattr(events_store, "_reader", no_reader)
        with pytest.raises(StoreDownError, match="too many open files"):
            await store.open()
    await store.open()
    assert msgspec.json.decode(await store.query("SELECT 1", 1))["data"] == [[1]]
    await store.close()
