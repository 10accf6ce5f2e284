"""Writes what the stream has and the tables lack, on an operator's word; what is there stays once.

Only messages that were acknowledged are read: the others are on their way, and writing them here
too would race with that.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from time import time
from typing import Protocol

from toolbus_audit.clickhouse.errors import UnreadableError
from toolbus_audit.clickhouse.row_mapper import DeadRow, EventRow, Rows, read, refused, token
from toolbus_common.contracts import BackfillReply, BackfillRequest
from toolbus_common.nats.stream_reader import StreamEntry

log = logging.getLogger(__name__)

Position = tuple[int, int, str]
Read = Callable[
    [int | datetime, int], Awaitable[list[StreamEntry]]
]  # so many messages from a place on
MOST = 1000  # messages of the stream that are read at once
YOUNG = 3600.0  # seconds: an event of an export may be on its way for so long
MOST_DEAD = 100  # messages with dead letters that are read again at once


class Store(Protocol):
    """What keeps the rows."""

    async def insert(self, table: str, what: Rows, token: str) -> None:
        """Write the rows; the same token again writes nothing."""

    async def stored(self, sequences: Sequence[int]) -> set[Position]:
        """The positions already stored, of events and dead letters, in these messages."""

    async def dead_from(self, first: int, most: int) -> list[Position]:
        """The dead letters of so many messages, from number `first` on, in their order."""

    async def ids(self, some: Sequence[str]) -> set[str]:
        """Those of these ids that events have which are stored."""

    async def bury(self, letters: Sequence[Position]) -> None:
        """Remove dead letters that have become rows."""


class Refilling:
    """Reads the stream again. `settled` tells up to where audit has acknowledged all of it."""

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
        self._stream = stream  # which one the messages are of
        self._one = asyncio.Lock()  # two at once would look, and then both write

    async def answer(self, question: BackfillRequest) -> BackfillReply:
        """One stretch of the stream.

        Raises:
            StoreDownError: ClickHouse cannot take events now.
            BusDownError: the stream cannot be read.

        """
        async with self._one:
            until = await self._settled()
            if question.dead:
                return await self._dead(question.first, until)
            first = datetime.fromtimestamp(question.since, UTC) if question.since else None
            found = await self._read(first or max(question.first, 1), MOST)
            some = [message for message in found if message.sequence <= until]
            return await self._write(some, some[-1].sequence + 1 if some else 0, until)

    async def take(self, lines: Sequence[str]) -> BackfillReply:
        """Events of an export. Raises `StoreDownError`."""
        async with self._one:
            found = [read("", 0, line.encode()) for line in lines]
            rows = {row.id: row for good, _ in found for row in good if row.at < time() - YOUNG}
            known = await self._store.ids(list(rows))
            missing = [row for row in rows.values() if row.id not in known]
            lost = await self._insert(missing)
        unreadable = sum(len(bad) for _, bad in found) + len(lost)
        written = len(missing) - len(lost)
        return BackfillReply(
            lines=len(lines), written=written, unreadable=unreadable, next=0, until=0
        )

    async def _dead(self, first: int, until: int) -> BackfillReply:
        letters = await self._store.dead_from(first, MOST_DEAD)
        numbers = sorted({number for number, _, _ in letters if number <= until})
        some = []
        for number in numbers:
            kept = await self._read(number, 1)
            some += [message for message in kept if message.sequence == number]
        more = len(numbers) == MOST_DEAD
        told = await self._write(some, numbers[-1] + 1 if more else 0, until)
        await self._bury(letters)
        return told

    async def _write(self, messages: list[StreamEntry], go_on: int, until: int) -> BackfillReply:
        events, dead = self._rows(messages)
        lines = len(events) + len(dead)
        known = await self._store.stored([message.sequence for message in messages])
        missing = [row for row in events if row.position not in known]
        lost = await self._insert(missing)
        new = [row for row in dead if row.position not in known]
        new += [row for row in lost if row.position not in known]
        if new:
            await self._store.insert("dead_letters", new, token(new))
        if written := len(missing) - len(lost):
            log.info("audit.refilled", extra={"rows": written, "stream_seq": until})
        unreadable = len(dead) + len(lost)
        return BackfillReply(
            lines=lines, written=written, unreadable=unreadable, next=go_on, until=until
        )

    def _rows(self, messages: list[StreamEntry]) -> tuple[list[EventRow], list[DeadRow]]:
        events: list[EventRow] = []
        dead: list[DeadRow] = []
        for message in messages:
            good, bad = read(message.subject, message.sequence, message.data, self._stream())
            events += good
            dead += bad
        return events, dead

    async def _insert(self, events: list[EventRow]) -> list[DeadRow]:
        """Insert; those that ClickHouse cannot hold, found by halving."""
        if not events:
            return []
        try:
            await self._store.insert("events", events, token(events))
        except UnreadableError as error:
            if len(events) == 1:
                return [refused(events[0], str(error))]
            half = len(events) // 2
            return await self._insert(events[:half]) + await self._insert(events[half:])
        return []

    async def _bury(self, letters: list[Position]) -> None:
        """Remove the letters whose lines are rows now: an export would tell them twice."""
        known = await self._store.stored(sorted({number for number, _, _ in letters}))
        rows = {(number, line) for number, line, _ in known - set(letters)}
        if mended := [each for each in letters if each[:2] in rows]:
            await self._store.bury(mended)
            log.info("audit.dead_letters_mended", extra={"lines": len(mended)})
