"""Move the events of the lite form into ClickHouse, once, when the full form starts.

The lite form has acknowledged its messages, so the stream does not deliver them again, and it
removes them after 14 days. All rows are therefore read from the file. A row that the tables have
already is not written again, so the move can be interrupted at any time. At the end the file gets
another name.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path

from toolbus_audit.clickhouse.errors import RowsRejectedError, StoreDownError
from toolbus_audit.clickhouse.row_mapper import DeadRow, EventRow, token
from toolbus_audit.clickhouse.store import ClickHouse
from toolbus_audit.events_file.moved_rows import MovedRows
from toolbus_audit.ingest.backfill import insert_in_halves
from toolbus_common.errors import BusDownError
from toolbus_common.settings import MOVED_EVENTS_FILE

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
MESSAGES = 1000  # read from the file at once
Finished = Callable[[], Awaitable[float]]


async def move(
    path: Path, store: ClickHouse, stream: Callable[[], Awaitable[str]], finished: Finished
) -> None:
    """Move the file at `path`, retrying while the store or the bus is down.

    `stream` returns the id of the current stream, and `finished` the highest sequence number up to
    which audit has acknowledged every message, or infinity if no message is left. The stream can
    end before the file: after a power failure, NATS may lack the last messages.
    """
    logged = ""
    while await asyncio.to_thread(path.exists):
        try:
            rows = await asyncio.to_thread(MovedRows, path)
            try:
                written = await _moved(rows, store, await stream(), finished)
            finally:
                await asyncio.to_thread(rows.close)
            await asyncio.to_thread(path.replace, path.with_name(MOVED_EVENTS_FILE))
            log.info("audit.file_moved", extra={"rows": written, "file": str(path)})
        except (StoreDownError, BusDownError) as error:
            if str(error) != logged:
                logged = str(error)
                log.info("audit.move_waiting", extra={"reason": logged})
            await asyncio.sleep(RETRY_SECONDS)
        except (sqlite3.Error, RowsRejectedError, OSError) as error:
            log.error("audit.not_moved", extra={"file": str(path), "reason": str(error)})  # noqa: TRY400
            return


async def _moved(rows: MovedRows, store: ClickHouse, current: str, finished: Finished) -> int:
    """Write what the tables lack; return the number of events."""
    written = 0
    for stream, last in (await asyncio.to_thread(rows.newest)).items():
        if stream == current:
            # Messages that the lite form did not acknowledge are delivered again, and stored by the
            # writer: a row that both write at the same time would be there twice.
            while await finished() < last:  # noqa: ASYNC110 - the bus has no event for it
                await asyncio.sleep(RETRY_SECONDS / 5)
        after = 0
        while events := await asyncio.to_thread(rows.events, stream, after, MESSAGES):
            written += await _write_events(store, events)
            after = events[-1].stream_seq
    await _write_dead(store, await asyncio.to_thread(rows.dead_letters))
    for table, signed in await asyncio.to_thread(rows.signed):
        notes = sha256("".join(row.note for row in signed).encode()).hexdigest()
        await store.insert(table, signed, f"moved-{notes}")
    return written


async def _write_events(store: ClickHouse, events: list[EventRow]) -> int:
    known = await store.stored(sorted({row.stream_seq for row in events}))
    missing = [row for row in events if row.position not in known]
    await _write_dead(store, await insert_in_halves(store, missing))
    return len(missing)


async def _write_dead(store: ClickHouse, dead: list[DeadRow]) -> None:
    for start in range(0, len(dead), MESSAGES):
        some = dead[start : start + MESSAGES]
        known = await store.stored(sorted({row.stream_seq for row in some}))
        missing = [row for row in some if row.position not in known]
        if missing:
            await store.insert("dead_letters", missing, token(missing))
