"""Write events that the stream or an export has and the tables lack, without duplicates.

Only acknowledged messages are read. The writer stores all other messages, and writing them here too
would race with it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from time import time
from typing import Protocol

from toolbus_audit.clickhouse.errors import RowsRejectedError
from toolbus_audit.clickhouse.row_mapper import (
    DeadRow,
    EventRow,
    Rows,
    read,
    read_messages,
    rejected_row,
    token,
)
from toolbus_common.contracts import BackfillReply, BackfillRequest
from toolbus_common.nats.stream_reader import StreamEntry

log = logging.getLogger(__name__)

Position = tuple[int, int, str]
# Reads messages. Arguments: the first sequence or time, and the maximum number of messages.
Read = Callable[[int | datetime, int], Awaitable[list[StreamEntry]]]
MAX_MESSAGES = 1000  # messages of the stream read at once
IN_FLIGHT_SECONDS = 3600.0  # the writer may still be about to store events younger than this
MAX_DEAD_LETTERS = 100  # messages with dead letters read at once


class Store(Protocol):
    """Store of event rows and dead letters."""

    async def insert(self, table: str, batch: Rows, token: str) -> None:
        """Insert rows. If the token was used before, nothing is inserted."""

    async def stored(self, sequences: Sequence[int]) -> set[Position]:
        """Return the positions of the stored events and dead letters of these messages."""

    async def dead_from(self, first: int, maximum: int) -> list[Position]:
        """Return dead letters of at most `maximum` messages, in order from sequence `first`."""

    async def stored_ids(self, ids: Sequence[str]) -> set[str]:
        """Return which of these event ids are stored."""

    async def delete_dead_letters(self, letters: Sequence[Position]) -> None:
        """Delete dead letters whose lines have been stored as rows since then."""


class Backfill:
    """Backfill from the stream or from an export.

    `settled` returns the highest sequence up to which audit has acknowledged every message.
    """

    def __init__(
        self,
        store: Store,
        read_from: Read,
        settled: Callable[[], Awaitable[int]],
        stream: Callable[[], str],
    ) -> None:
        self._store = store
        self._read = read_from
        self._settled = settled
        self._stream = stream  # the stream of the messages
        self._lock = asyncio.Lock()  # two concurrent look-ups would both find a row missing

    async def from_stream(self, request: BackfillRequest) -> BackfillReply:
        """Write the missing events of one section of the stream.

        Raises:
            StoreDownError: ClickHouse cannot take events now.
            BusDownError: the stream cannot be read.

        """
        async with self._lock:
            until = await self._settled()
            if request.dead:
                return await self._retry_dead(request.first, until)
            first = datetime.fromtimestamp(request.since, UTC) if request.since else None
            found = await self._read(first or max(request.first, 1), MAX_MESSAGES)
            messages = [message for message in found if message.sequence <= until]
            following = messages[-1].sequence + 1 if messages else 0
            return await self._write(messages, following, until)

    async def from_export(self, lines: Sequence[str]) -> BackfillReply:
        """Write the events of an export whose ids are not stored. Raises `StoreDownError`.

        Events of the last hour are skipped, because the writer may still store them.
        """
        async with self._lock:
            found = [read("", 0, line.encode()) for line in lines]
            oldest = time() - IN_FLIGHT_SECONDS
            rows = {row.id: row for good, _ in found for row in good if row.at < oldest}
            known = await self._store.stored_ids(list(rows))
            missing = [row for row in rows.values() if row.id not in known]
            rejected = await insert_in_halves(self._store, missing)
        return BackfillReply(
            lines=len(lines),
            written=len(missing) - len(rejected),
            unreadable=sum(len(bad) for _, bad in found) + len(rejected),
            next=0,
            until=0,
        )

    async def _retry_dead(self, first: int, until: int) -> BackfillReply:
        """Parse messages with dead letters again, and delete the letters that have become rows."""
        letters = await self._store.dead_from(first, MAX_DEAD_LETTERS)
        numbers = sorted({number for number, _, _ in letters if number <= until})
        messages = []
        for number in numbers:
            found = await self._read(number, 1)
            messages += [message for message in found if message.sequence == number]
        more = len(numbers) == MAX_DEAD_LETTERS
        reply = await self._write(messages, numbers[-1] + 1 if more else 0, until)
        # A line that is both a row and a dead letter would be in an export twice.
        known = await self._store.stored(sorted({number for number, _, _ in letters}))
        rows = {(number, line) for number, line, _ in known - set(letters)}
        if recovered := [each for each in letters if each[:2] in rows]:
            await self._store.delete_dead_letters(recovered)
            log.info("audit.dead_letters_recovered", extra={"lines": len(recovered)})
        return reply

    async def _write(self, messages: list[StreamEntry], go_on: int, until: int) -> BackfillReply:
        events, dead = read_messages(messages, self._stream())
        lines = len(events) + len(dead)
        known = await self._store.stored([message.sequence for message in messages])
        missing = [row for row in events if row.position not in known]
        rejected = await insert_in_halves(self._store, missing)
        new = [row for row in (*dead, *rejected) if row.position not in known]
        if new:
            await self._store.insert("dead_letters", new, token(new))
        if written := len(missing) - len(rejected):
            log.info("audit.backfilled", extra={"rows": written, "stream_seq": until})
        unreadable = len(dead) + len(rejected)
        return BackfillReply(
            lines=lines, written=written, unreadable=unreadable, next=go_on, until=until
        )


async def insert_in_halves(store: Store, events: list[EventRow]) -> list[DeadRow]:
    """Insert events in halves if the store rejects them together; return the rejected rows."""
    if not events:
        return []
    try:
        await store.insert("events", events, token(events))
    except RowsRejectedError as error:
        if len(events) == 1:
            return [rejected_row(events[0], str(error))]
        half = len(events) // 2
        return [
            *await insert_in_halves(store, events[:half]),
            *await insert_in_halves(store, events[half:]),
        ]
    return []
