"""The move of the lite form's file to ClickHouse: every row once, in spite of interruptions."""

import asyncio
from pathlib import Path

import msgspec

from harness.waits import until
from toolbus_audit.clickhouse.row_mapper import CheckpointRow, EventRow, read, token
from toolbus_audit.clickhouse.store import ClickHouse
from toolbus_audit.events_file.store import EventsFile
from toolbus_audit.ingest.moved_file import move
from toolbus_audit.settings import Settings
from toolbus_common.concurrency import in_background
from toolbus_common.settings import EVENTS_FILE, MOVED_EVENTS_FILE

STREAM, OLD_STREAM = "2", "1"
MESSAGES = 1500  # more than the move reads at once
CHECKPOINT = CheckpointRow("acme", STREAM, 5, 1_763_708_342, 9, ("a", "b"), "note\n")
WHOLE = "SELECT stream, stream_seq, line, id, detail FROM events ORDER BY stream, stream_seq, line"


def message(stream: str, sequence: int) -> bytes:
    """Return a message with two events."""
    common = {"event": "call.allowed", "producer": "p", "at": 1_763_708_342.5, "customer": "acme"}
    own = [{"id": f"{stream}.{sequence}.{line}", "seq": 2 * sequence + line} for line in range(2)]
    return b"\n".join(msgspec.json.encode(common | each) for each in own)


async def written(tmp_path: Path) -> list[EventRow]:
    """Write events of two streams, a dead letter and a checkpoint; return the events."""
    file = EventsFile(Settings(state_dir=tmp_path, events_file=tmp_path / EVENTS_FILE))
    await file.open()
    rows: list[EventRow] = []
    for stream, last in ((OLD_STREAM, 2), (STREAM, MESSAGES)):
        for sequence in range(1, last + 1):
            rows += read("", sequence, message(stream, sequence), stream)[0]
    await file.insert("events", rows, "token")
    _, dead = read("tb.event.call.allowed.acme", 7, message(STREAM, 7) + b"\nnot JSON", STREAM)
    await file.insert("dead_letters", dead, token(dead))
    await file.insert("checkpoints", [CHECKPOINT], "token")
    await file.close()
    return rows


async def stream() -> str:
    return STREAM


async def settled() -> int:
    return MESSAGES


async def test_rows_that_an_interrupted_move_wrote_are_not_written_again(
    store: ClickHouse, tmp_path: Path
) -> None:
    rows = await written(tmp_path)
    some = [row for row in rows if row.stream == STREAM][: MESSAGES // 2]
    await store.insert("events", some, token(some))
    file = tmp_path / EVENTS_FILE
    await move(file, store, stream, settled)
    assert not file.exists()
    moved = await store.select(WHOLE)
    assert moved == [(r.stream, r.stream_seq, r.line, r.id, r.detail) for r in rows]
    dead = await store.select("SELECT stream_seq, line, raw FROM dead_letters")
    assert dead == [(7, 2, "not JSON")]
    checkpoints = await store.select("SELECT size, to, edge, note FROM checkpoints")
    assert checkpoints == [(5, 9, ["a", "b"], "note\n")]

    (tmp_path / MOVED_EVENTS_FILE).rename(file)  # as if it had been killed before the new name
    await move(file, store, stream, settled)
    assert await store.select(WHOLE) == moved
    assert await store.select("SELECT count() FROM dead_letters") == [(1,)]
    assert await store.select("SELECT count() FROM checkpoints FINAL") == [(1,)]


async def test_messages_that_are_not_acknowledged_yet_are_left_to_the_writer_first(
    store: ClickHouse, tmp_path: Path
) -> None:
    await written(tmp_path)
    acknowledged, questions = [MESSAGES - 1], 0

    async def settled() -> int:
        nonlocal questions
        questions += 1
        return acknowledged[0]

    async with in_background(move(tmp_path / EVENTS_FILE, store, stream, settled)):
        await until(lambda: questions > 1, "the move waits")
        count = f"SELECT count() FROM events WHERE stream = '{STREAM}'"
        assert await store.select(count) == [(0,)]
        acknowledged[0] = MESSAGES
        await until((tmp_path / MOVED_EVENTS_FILE).exists, "the file is moved")
    assert await store.select(count) == [(2 * MESSAGES,)]


async def test_an_unreadable_file_stays_where_it_is(store: ClickHouse, tmp_path: Path) -> None:
    file = tmp_path / EVENTS_FILE
    file.write_bytes(b"no database" * 1000)
    async with asyncio.timeout(60):
        await move(file, store, stream, settled)
    assert file.exists()
