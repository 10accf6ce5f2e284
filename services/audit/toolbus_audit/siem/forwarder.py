"""Tells one sink: reads the stream from where the sink is, and goes on when it took something."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

from toolbus_audit.delivery.cursor import Cursor, OvertakenError
from toolbus_audit.siem.base import Outlet, SinkError
from toolbus_audit.siem.records import records_of
from toolbus_common.config import Sink
from toolbus_common.errors import BusDownError
from toolbus_common.nats.stream_reader import StreamEntry
from toolbus_common.observability.metrics import (
    SINK_BEHIND,
    SINK_DEAD,
    SINK_EVENTS,
    SINK_FAILURES,
    SINK_LOST,
)

log = logging.getLogger(__name__)

MOST = 100  # messages read at once
POLL_SECONDS = 0.5
KEEP_SECONDS = 1.0  # between two notes of how far it is
FIRST_RETRY, SLOWEST_RETRY = 1.0, 60.0


@dataclass(frozen=True, slots=True)
class Stream:
    """The stream EVENTS, as a sink reads it."""

    begun: Callable[[], Awaitable[str]]
    newest: Callable[[], Awaitable[int]]
    read: Callable[[int, int], Awaitable[list[StreamEntry]]]  # from a message on, so many


@dataclass(frozen=True, slots=True)
class Way:
    """How a sink is told: its outlet, the threads of sinks, and when one that failed is tried."""

    outlet: Outlet
    threads: Executor
    first_retry: float = FIRST_RETRY


@dataclass(slots=True)
class State:
    """How a sink is, for `toolbus status`."""

    told: int = 0
    behind: int = 0
    dead: int = 0
    lost: int = 0
    why: str = "waiting for another audit to let it go"

    def __str__(self) -> str:
        """In a few words."""
        counts = f"{self.told} told, {self.behind} behind, {self.dead} refused, {self.lost} lost"
        return f"{counts}; {self.why}" if self.why else counts


class Telling:
    """One sink, for as long as its cursor is ours."""

    def __init__(
        self,
        name: str,
        sink: Sink,
        cursor: Cursor,
        stream: Stream,
        way: Way,
    ) -> None:
        self.state = State()
        self._name = name
        self._sink = sink
        self._cursor = cursor
        self._stream = stream
        self._outlet = way.outlet
        self._threads = way.threads
        self._first_retry = way.first_retry
        self._at = 0  # the last message sent
        self._looked = 0.0

    async def run(self) -> None:
        """Tell, until another audit does or the bus is lost."""
        try:
            await self._cursor.while_held(self._tell)
        except OvertakenError:
            self.state.why = "another audit tells it"
        except BusDownError as error:
            self.state.why = error.reason
            log.info("sink.waiting", extra={"sink": self._name, "reason": error.reason})

    async def _tell(self) -> None:
        await self._take_up()
        delay = self._first_retry
        try:
            while True:
                try:
                    more = await self._step()
                    await self._look()
                    delay, self.state.why = self._first_retry, ""
                except SinkError as error:
                    await self._failed(error, delay)
                    delay = min(delay * 2, SLOWEST_RETRY)
                    continue
                if not more:
                    await asyncio.sleep(POLL_SECONDS)
        finally:
            self._note_taken()
            await self._outlet.close()

    def _note_taken(self) -> None:
        """What is known to be taken is not told again, however this ends."""
        with suppress(SinkError):
            self._cursor.place.done = max(self._cursor.place.done, self._outlet.taken())

    async def _take_up(self) -> None:
        """Where to begin: where it was, else now or at the oldest; a stream begun anew, whole."""
        place, stream = self._cursor.place, await self._stream.begun()
        if place.stream != stream:
            first = not place.stream and self._sink.begin == "now"
            place.done = await self._stream.newest() if first else 0
            place.stream = stream
            await self._cursor.keep()
        self._at = place.done
        self._outlet.sent(place.done)
        self.state.why = ""

    async def _step(self) -> bool:
        """Read some messages and send what is wanted of them; whether there were any."""
        kept = await self._stream.read(self._at + 1, MOST)
        if not kept:
            return False
        loop = asyncio.get_running_loop()
        records, unreadable = await loop.run_in_executor(
            self._threads, records_of, self._sink, kept
        )
        refused = await self._outlet.send(records) if records else []
        for each in refused:
            log.error("sink.refused", extra={"sink": self._name, "event_id": each.id})
        self._count(len(records) - len(refused), unreadable + len(refused))
        self._count_lost(kept[0].sequence)
        self._at = kept[-1].sequence
        self._outlet.sent(self._at)
        return True

    async def _look(self) -> None:
        """Note how far it is, now and then. Raises `SinkError` when the way to it is lost."""
        taken = self._outlet.taken()
        if monotonic() - self._looked < KEEP_SECONDS:
            return
        self._looked = monotonic()
        newest = await self._stream.newest()
        if newest < self._at:
            raise BusDownError("The stream was begun anew; what is in it is told from its start.")
        self.state.behind = newest - taken
        SINK_BEHIND.labels(self._name).set(newest - taken)
        if taken > self._cursor.place.done:
            self._cursor.place.done = taken
            await self._cursor.keep()

    async def _failed(self, error: SinkError, delay: float) -> None:
        SINK_FAILURES.labels(self._name).inc()
        if str(error) != self.state.why:
            self.state.why = str(error)
            log.warning("sink.failed", extra={"sink": self._name, "reason": str(error)})
        self._note_taken()
        await self._outlet.close()
        self._at = self._cursor.place.done
        self._outlet.sent(self._at)
        pause = delay * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
        await asyncio.sleep(max(pause, error.after))

    def _count(self, told: int, dead: int) -> None:
        self.state.told += told
        self.state.dead += dead
        SINK_EVENTS.labels(self._name).inc(told)
        if dead:
            SINK_DEAD.labels(self._name).inc(dead)

    def _count_lost(self, first: int) -> None:
        """What the stream forgot before the sink was told of it."""
        lost = first - self._at - 1
        if self._at and lost > 0:
            self.state.lost += lost
            SINK_LOST.labels(self._name).inc(lost)
            log.error("sink.lost", extra={"sink": self._name, "messages": lost})
