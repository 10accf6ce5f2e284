"""Takes events from the stream to the store, exactly once, in batches; nothing is lost."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from toolbus_audit.clickhouse.errors import StoreDownError, UnreadableError
from toolbus_audit.clickhouse.row_mapper import DeadRow, EventRow, Rows, read, refused, token
from toolbus_common.nats.connection import StoredMessage
from toolbus_common.observability.metrics import (
    AUDIT_BEHIND,
    AUDIT_DEAD,
    AUDIT_DEAD_KEPT,
    AUDIT_ROWS,
)

log = logging.getLogger(__name__)

FULL = 10_000  # events
MESSAGES = 500  # in one pull; a pull brings fewer only when its second is over
# A batch is held this long at most, and then one attempt more: together less than the
# consumer's ack_wait, after which others may have it.
HOLD_SECONDS = 5.0
AGAIN_SECONDS = 10.0  # no less than an insert whose answer was lost may still be running
SLOWEST_RETRY = 2.0

T = TypeVar("T")
Position = tuple[int, int, str]


class Store(Protocol):
    """What keeps the rows."""

    async def open(self) -> None:
        """Connect. Raises `StoreDownError`."""

    async def insert(self, table: str, what: Rows, token: str) -> None:
        """Write the rows; the same token again writes nothing."""

    async def stored(self, sequences: Sequence[int]) -> set[Position]:
        """The positions already stored, of events and dead letters, in these messages."""

    async def last_sequence(self) -> int:
        """The newest message of which anything is stored."""

    async def dead_letters(self) -> int:
        """How many lines lie in the table of those nobody could read."""


class Writer:
    """The consumer's side of audit.

    A message is acknowledged only when its rows are stored. One that may have been stored
    before (delivered before, or not newer than all that is stored) is looked up by position,
    so neither a lost acknowledgement nor a kill between insert and acknowledgement copies it.
    """

    def __init__(self, store: Store, *, hold_seconds: float = HOLD_SECONDS) -> None:
        self._store = store
        self._hold = hold_seconds
        self._waiting: list[StoredMessage] = []
        self._events = 0
        self._since = 0.0  # when the first of those that wait was heard
        self._newest = 0
        self.stream = ""  # which stream the messages are of
        self._in_doubt = True
        self._writing: asyncio.Task[None] | None = None
        self.reason = "opening the store"
        self.rows = 0
        self.dead = 0  # in the table, whenever they came there

    async def open(self) -> None:
        """Return once the store is open, however long that takes; `reason` says why meanwhile."""
        while True:
            try:
                await self._store.open()
                await self._look_again()
                await self.count_dead()
            except StoreDownError as error:
                self._say(str(error))
                await asyncio.sleep(SLOWEST_RETRY / 2)
            else:
                self.reason = ""
                return

    async def count_dead(self) -> None:
        """Look how many dead letters there are. Raises `StoreDownError`."""
        self.dead = await self._store.dead_letters()
        AUDIT_DEAD_KEPT.set(self.dead)

    def doubt(self) -> None:
        """The bus was lost: it may have forgotten which messages were delivered before."""
        self._in_doubt = True

    async def hear(self, messages: list[StoredMessage]) -> None:
        """Take a pull's messages, and write when a batch is full or its second is over.

        While a full batch is written the next one gathers: the engine has a core of its own.
        """
        if not self._waiting:
            self._since = asyncio.get_running_loop().time()
        self._waiting += messages
        self._events += sum(message.data.count(b"\n") + 1 for message in messages)
        AUDIT_BEHIND.set(messages[-1].pending if messages else 0)
        if len(messages) < MESSAGES:
            await self.flush()
        elif self._events >= FULL:
            await self._begin()

    async def flush(self) -> None:
        """Write and acknowledge everything heard. A write once begun is not cut short."""
        await self._begin()
        if self._writing is not None:
            await asyncio.shield(self._writing)

    async def _begin(self) -> None:
        """Begin to write what waits, after what is being written."""
        if self._writing is not None and not self._writing.done():
            await asyncio.wait([self._writing])
            if asyncio.get_running_loop().time() > self._since + self._hold:
                await self._give_back()
        messages, self._waiting, self._events = self._waiting, [], 0
        if messages:
            self._writing = asyncio.get_running_loop().create_task(self._keep(messages))

    async def _give_back(self) -> None:
        """What waited for too long comes again: others may have it by now, and are asked then."""
        messages, self._waiting, self._events = self._waiting, [], 0
        await _again(messages)

    async def close(self, seconds: float) -> None:
        """Write what is left; what the store does not take in time stays in the stream."""
        try:
            async with asyncio.timeout(seconds):
                await self.flush()
        except TimeoutError:
            log.warning("audit.left_in_stream", extra={"reason": self.reason})
            if self._writing is not None:
                self._writing.cancel()

    async def _keep(self, messages: list[StoredMessage]) -> None:
        try:
            await self._write(messages, asyncio.get_running_loop().time() + self._hold)
            for message in messages[:-1]:
                await message.done()
            await messages[-1].done(wait=True)
        except StoreDownError:
            await _again(messages)
            await self.open()
        except Exception:
            log.exception("audit.batch_failed", extra={"messages": len(messages)})
            await _again(messages)

    async def _write(self, messages: list[StoredMessage], until: float) -> None:
        events: list[EventRow] = []
        dead: list[DeadRow] = []
        for message in {message.sequence: message for message in messages}.values():
            good, bad = read(message.subject, message.sequence, message.data, self.stream)
            events += good
            dead += bad
        known = await self._patiently(until, self._stored_of, messages)
        if known:
            events = [row for row in events if row.position not in known]
        await self._insert_events(events, dead, until)
        # After the events: the store may have refused one of them.
        dead = [row for row in dead if row.position not in known]
        await self._insert("dead_letters", dead, until)
        self._newest = max(self._newest, *(message.sequence for message in messages))
        self._count(len(events), dead)

    async def _stored_of(self, messages: list[StoredMessage]) -> set[Position]:
        if self._in_doubt:
            await self._look_again()
        doubtful = [
            message.sequence
            for message in messages
            if message.delivered > 1 or message.sequence <= self._newest
        ]
        return await self._store.stored(doubtful) if doubtful else set()

    async def _look_again(self) -> None:
        self._in_doubt = False
        try:
            self._newest = max(self._newest, await self._store.last_sequence())
        except BaseException:
            self._in_doubt = True
            raise

    async def _insert_events(
        self, events: list[EventRow], dead: list[DeadRow], until: float
    ) -> None:
        """Insert; where ClickHouse cannot hold a value, halve until the one row is found."""
        try:
            await self._insert("events", events, until)
        except UnreadableError as error:
            if len(events) == 1:
                dead.append(refused(events.pop(), str(error)))
                return
            half = len(events) // 2
            for part in (events[:half], events[half:]):
                await self._insert_events(part, dead, until)

    async def _insert(self, table: str, what: Rows, until: float) -> None:
        if what:
            # One token for all attempts: an insert whose answer was lost is not done twice.
            await self._patiently(until, self._store.insert, table, what, token(what))

    async def _patiently(self, until: float, work: Callable[..., Awaitable[T]], *given: Any) -> T:
        """Try until it succeeds or the batch may no longer be held."""
        delay = 0.1
        while True:
            try:
                result = await work(*given)
            except StoreDownError as error:
                self._say(str(error))
                if asyncio.get_running_loop().time() + delay > until:
                    raise
            else:
                self.reason = ""
                return result
            await asyncio.sleep(delay)
            delay = min(delay * 2, SLOWEST_RETRY)

    def _count(self, events: int, dead: list[DeadRow]) -> None:
        self.rows += events
        self.dead += len(dead)
        AUDIT_ROWS.inc(events)
        if dead:
            AUDIT_DEAD.inc(len(dead))
            AUDIT_DEAD_KEPT.set(self.dead)
            log.warning(
                "audit.dead_letters", extra={"lines": len(dead), "stream_seq": dead[0].stream_seq}
            )

    def _say(self, reason: str) -> None:
        if reason != self.reason:
            self.reason = reason
            log.warning("audit.waiting", extra={"reason": reason})


async def _again(messages: list[StoredMessage]) -> None:
    for message in messages:
        with suppress(Exception):  # the bus may be gone: it sends them again by itself then
            await message.again(AGAIN_SECONDS)
