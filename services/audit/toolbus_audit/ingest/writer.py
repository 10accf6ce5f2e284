"""Write events from the stream to the store in batches, exactly once and without loss."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from tenacity import RetryCallState

from toolbus_audit.clickhouse.errors import RowsRejectedError, StoreDownError
from toolbus_audit.clickhouse.row_mapper import (
    DeadRow,
    EventRow,
    Rows,
    read_messages,
    rejected_row,
    token,
)
from toolbus_common.nats.connection import StoredMessage
from toolbus_common.observability.metrics import (
    AUDIT_BEHIND,
    AUDIT_DEAD,
    AUDIT_DEAD_KEPT,
    AUDIT_ROWS,
)
from toolbus_common.retries import Backoff, reason_of, retrying

log = logging.getLogger(__name__)

BATCH_EVENTS = 10_000
PULL_MESSAGES = 500  # a pull returns fewer only when its wait of a second is over
# A batch waits at most this long, plus one attempt. Together this is less than the consumer's
# `ack_wait`, after which the messages may be delivered to another replica.
HOLD_SECONDS = 5.0
# An insert whose response was lost can still be running for this time.
REDELIVERY_SECONDS = 10.0
LONGEST_RETRY = 2.0

T = TypeVar("T")
Position = tuple[int, int, str]


class Store(Protocol):
    """Store of event rows and dead letters."""

    async def open(self) -> None:
        """Connect. Raises `StoreDownError`."""

    async def insert(self, table: str, batch: Rows, token: str) -> None:
        """Insert rows. If the token was used before, nothing is inserted."""

    async def stored(self, sequences: Sequence[int]) -> set[Position]:
        """Return the positions of the stored events and dead letters of these messages."""

    async def last_sequence(self) -> int:
        """Return the highest stream sequence number with a stored row."""

    async def dead_letters(self) -> int:
        """Return the number of rows in the table `dead_letters`."""


class Writer:
    """Consumer of the stream: batches messages, stores their rows, acknowledges them.

    A message is acknowledged only after its rows are stored. A message that may have been stored
    before (redelivered, or not newer than any stored message) is looked up by position, so that
    neither a lost acknowledgement nor a kill between insert and acknowledgement duplicates rows.
    """

    def __init__(self, store: Store, *, hold_seconds: float = HOLD_SECONDS) -> None:
        self._store = store
        self._hold = hold_seconds
        self._waiting: list[StoredMessage] = []
        self._events = 0
        self._since = 0.0  # when the first waiting message was received
        self._newest = 0
        self.stream = ""  # the stream of the messages
        self._in_doubt = True
        self._writing: asyncio.Task[None] | None = None
        self.reason = "opening the store"
        self.rows = 0
        self.dead = 0  # rows in the table, from all processes

    async def open(self) -> None:
        """Wait until the store is open. Meanwhile `reason` is the cause of the wait."""
        while True:
            try:
                await self._store.open()
                await self._load_newest()
                await self.count_dead()
            except StoreDownError as error:
                self._set_reason(str(error))
                await asyncio.sleep(LONGEST_RETRY / 2)
            else:
                self.reason = ""
                return

    async def count_dead(self) -> None:
        """Refresh the number of dead letters. Raises `StoreDownError`."""
        self.dead = await self._store.dead_letters()
        AUDIT_DEAD_KEPT.set(self.dead)

    def bus_lost(self) -> None:
        """Reload the newest stored sequence before the next write: delivery counts may be lost."""
        self._in_doubt = True

    async def receive(self, messages: list[StoredMessage]) -> None:
        """Add the messages of one pull; write when the batch is full or the pull was not full.

        Messages of the next batch are collected while a full batch is being written.
        """
        if not self._waiting:
            self._since = asyncio.get_running_loop().time()
        self._waiting += messages
        self._events += sum(message.data.count(b"\n") + 1 for message in messages)
        AUDIT_BEHIND.set(messages[-1].pending if messages else 0)
        if len(messages) < PULL_MESSAGES:
            await self.flush()
        elif self._events >= BATCH_EVENTS:
            await self._start_write()

    async def flush(self) -> None:
        """Write and acknowledge every message received. A running write is not cancelled."""
        await self._start_write()
        if self._writing is not None:
            await asyncio.shield(self._writing)

    async def close(self, seconds: float) -> None:
        """Write the waiting messages; messages not stored within `seconds` stay in the stream."""
        try:
            async with asyncio.timeout(seconds):
                await self.flush()
        except TimeoutError:
            log.warning("audit.messages_left_in_stream", extra={"reason": self.reason})
            if self._writing is not None:
                self._writing.cancel()

    async def _start_write(self) -> None:
        """Start to write the waiting messages once the running write is over.

        Messages that waited longer than `hold_seconds` are returned to the bus instead: another
        replica may have received them by then.
        """
        loop = asyncio.get_running_loop()
        if self._writing is not None and not self._writing.done():
            await asyncio.wait([self._writing])
            if loop.time() > self._since + self._hold:
                await _redeliver(self._take_waiting())
        if messages := self._take_waiting():
            self._writing = loop.create_task(self._write_batch(messages))

    def _take_waiting(self) -> list[StoredMessage]:
        messages, self._waiting, self._events = self._waiting, [], 0
        return messages

    async def _write_batch(self, messages: list[StoredMessage]) -> None:
        try:
            await self._store_rows(messages, asyncio.get_running_loop().time() + self._hold)
            for message in messages[:-1]:
                await message.done()
            await messages[-1].done(wait=True)
        except StoreDownError:
            await _redeliver(messages)
            await self.open()
        except Exception:
            log.exception("audit.batch_failed", extra={"messages": len(messages)})
            await _redeliver(messages)

    async def _store_rows(self, messages: list[StoredMessage], deadline: float) -> None:
        unique = {message.sequence: message for message in messages}.values()
        events, dead = read_messages(unique, self.stream)
        known = await self._retry(deadline, self._stored_positions, messages)
        if known:
            events = [row for row in events if row.position not in known]
        await self._insert_events(events, dead, deadline)
        # Dead letters come after events, because events that the store rejects become dead letters.
        dead = [row for row in dead if row.position not in known]
        await self._insert("dead_letters", dead, deadline)
        self._newest = max(self._newest, *(message.sequence for message in messages))
        self.rows += len(events)
        self.dead += len(dead)
        AUDIT_ROWS.inc(len(events))
        if dead:
            AUDIT_DEAD.inc(len(dead))
            AUDIT_DEAD_KEPT.set(self.dead)
            log.warning(
                "audit.dead_letters", extra={"lines": len(dead), "stream_seq": dead[0].stream_seq}
            )

    async def _stored_positions(self, messages: list[StoredMessage]) -> set[Position]:
        """Return the stored positions of messages that may have been stored before."""
        if self._in_doubt:
            await self._load_newest()
        doubtful = [
            message.sequence
            for message in messages
            if message.delivered > 1 or message.sequence <= self._newest
        ]
        return await self._store.stored(doubtful) if doubtful else set()

    async def _load_newest(self) -> None:
        self._in_doubt = False
        try:
            self._newest = max(self._newest, await self._store.last_sequence())
        except BaseException:
            self._in_doubt = True
            raise

    async def _insert_events(
        self, events: list[EventRow], dead: list[DeadRow], deadline: float
    ) -> None:
        """Insert events. Bisect a rejected batch, and move the rejected rows to `dead`."""
        try:
            await self._insert("events", events, deadline)
        except RowsRejectedError as error:
            if len(events) == 1:
                dead.append(rejected_row(events.pop(), str(error)))
                return
            half = len(events) // 2
            for part in (events[:half], events[half:]):
                await self._insert_events(part, dead, deadline)

    async def _insert(self, table: str, batch: Rows, deadline: float) -> None:
        if batch:
            # All attempts share a token, so that an insert whose response was lost is not repeated.
            await self._retry(deadline, self._store.insert, table, batch, token(batch))

    async def _retry(self, deadline: float, work: Callable[..., Awaitable[T]], *given: Any) -> T:
        """Retry with backoff while the store is down, until `deadline` by the loop's clock."""

        def too_late(state: RetryCallState) -> bool:
            self._set_reason(reason_of(state))
            return asyncio.get_running_loop().time() + state.upcoming_sleep > deadline

        retry = retrying(Backoff(0.1, LONGEST_RETRY), StoreDownError, stop=too_late)
        result: T = await retry(work, *given)
        self.reason = ""
        return result

    def _set_reason(self, reason: str) -> None:
        if reason != self.reason:
            self.reason = reason
            log.warning("audit.waiting", extra={"reason": reason})


async def _redeliver(messages: list[StoredMessage]) -> None:
    for message in messages:
        with suppress(Exception):  # without a connection the bus redelivers after `ack_wait`
            await message.again(REDELIVERY_SECONDS)
