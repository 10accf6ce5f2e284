"""Forward the stream to one sink, from its stored position on, as fast as the sink accepts."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

from tenacity import RetryCallState

from toolbus_audit.delivery.cursor import Cursor, OvertakenError
from toolbus_audit.siem.base import SinkError, Transport
from toolbus_audit.siem.records import Selection, records_of
from toolbus_common.errors import BusDownError
from toolbus_common.nats.stream_reader import StreamEntry
from toolbus_common.observability.metrics import (
    SINK_BEHIND,
    SINK_DEAD,
    SINK_EVENTS,
    SINK_FAILURES,
    SINK_LOST,
)
from toolbus_common.retries import Backoff, error_of, reason_of, retrying

log = logging.getLogger(__name__)

MESSAGES_AT_ONCE = 100  # messages read at once
POLL_SECONDS = 0.5
SAVE_SECONDS = 1.0  # between two writes of the position
FIRST_RETRY, SLOWEST_RETRY = 1.0, 60.0
WAITING = "waiting for another audit replica to release it"
ELSEWHERE = "another audit replica forwards to it"


class SinkBackoff(Backoff):
    """Growing pause, at least as long as the sink requested."""

    def __call__(self, retry_state: RetryCallState) -> float:
        """Return the seconds before the next attempt."""
        error = error_of(retry_state)
        requested = error.retry_after if isinstance(error, SinkError) else 0.0
        return max(super().__call__(retry_state), requested)


@dataclass(frozen=True, slots=True)
class EventStream:
    """Access to the stream EVENTS; `created` identifies the stream."""

    created: Callable[[], Awaitable[str]]
    newest: Callable[[], Awaitable[int]]
    read: Callable[[int, int], Awaitable[list[StreamEntry]]]  # first sequence, limit


@dataclass(frozen=True, slots=True)
class Delivery:
    """Transport of a sink, threads for conversion, and the first retry delay in seconds."""

    transport: Transport
    threads: Executor
    first_retry: float = FIRST_RETRY


@dataclass(slots=True)
class State:
    """Status of a sink, for `toolbus status`."""

    delivered: int = 0
    behind: int = 0
    dead: int = 0
    lost: int = 0
    problem: str = WAITING

    @property
    def fault(self) -> str:
        """The problem, unless another replica forwards."""
        return "" if self.problem in (WAITING, ELSEWHERE) else self.problem

    def __str__(self) -> str:
        """Return a summary."""
        counts = (
            f"{self.delivered} delivered, {self.behind} behind,"
            f" {self.dead} rejected, {self.lost} lost"
        )
        return f"{counts}; {self.problem}" if self.problem else counts


class Forwarder:
    """Forwarder to one sink while this replica has the sink's lease."""

    def __init__(
        self,
        name: str,
        sink: Selection,
        cursor: Cursor,
        stream: EventStream,
        delivery: Delivery,
    ) -> None:
        self.state = State()
        self._name = name
        self._sink = sink
        self._cursor = cursor
        self._stream = stream
        self._transport = delivery.transport
        self._threads = delivery.threads
        self._first_retry = delivery.first_retry
        self._at = 0  # the last message sent
        self._checked_at = 0.0

    async def run(self) -> None:
        """Forward until another replica takes over or the connection to the bus is lost."""
        self.state.problem = WAITING  # an earlier problem may be solved by now
        try:
            await self._cursor.run_while_held(self._forward)
        except OvertakenError:
            self.state.problem = ELSEWHERE
        except BusDownError as error:
            self.state.problem = error.reason
            log.info("sink.waiting", extra={"sink": self._name, "reason": error.reason})

    async def _forward(self) -> None:
        await self._start()
        pause = SinkBackoff(self._first_retry, SLOWEST_RETRY)
        try:
            while True:
                retry = retrying(pause, SinkError, failed=self._handle_failure)
                more: bool = await retry(self._advance)
                if not more:
                    await asyncio.sleep(POLL_SECONDS)
        finally:
            self._record_delivered()
            await self._transport.close()

    def _record_delivered(self) -> None:
        """Advance the position, so that confirmed records are not sent again."""
        with suppress(SinkError):
            self._cursor.state.done = max(
                self._cursor.state.done, self._transport.delivered_until()
            )

    async def _start(self) -> None:
        """Begin at the stored position, else as configured. In a re-created stream, begin at 0."""
        state, stream = self._cursor.state, await self._stream.created()
        if state.stream != stream:
            first = not state.stream and self._sink.begin == "now"
            state.done = await self._stream.newest() if first else 0
            state.stream = stream
            await self._cursor.save()
        self._at = state.done
        self._transport.mark_sent(state.done)
        self.state.problem = ""

    async def _advance(self) -> bool:
        more = await self._step()
        await self._check_progress()
        self.state.problem = ""
        return more

    async def _step(self) -> bool:
        """Read messages and send their selected events; return whether there were messages."""
        messages = await self._stream.read(self._at + 1, MESSAGES_AT_ONCE)
        if not messages:
            return False
        loop = asyncio.get_running_loop()
        records, unreadable = await loop.run_in_executor(
            self._threads, records_of, self._sink, messages
        )
        rejected = await self._transport.send(records) if records else []
        for each in rejected:
            log.error("sink.rejected", extra={"sink": self._name, "event_id": each.id})
        self._count(len(records) - len(rejected), unreadable + len(rejected))
        self._count_lost(messages[0].sequence)
        self._at = messages[-1].sequence
        self._transport.mark_sent(self._at)
        return True

    async def _check_progress(self) -> None:
        """Store the position periodically. Raises `SinkError` if the connection is lost."""
        delivered = self._transport.delivered_until()
        if monotonic() - self._checked_at < SAVE_SECONDS:
            return
        self._checked_at = monotonic()
        newest = await self._stream.newest()
        if newest < self._at:
            raise BusDownError("The stream was re-created; it is forwarded from its start.")
        self.state.behind = newest - delivered
        SINK_BEHIND.labels(self._name).set(newest - delivered)
        if delivered > self._cursor.state.done:
            self._cursor.state.done = delivered
            await self._cursor.save()

    async def _handle_failure(self, state: RetryCallState) -> None:
        SINK_FAILURES.labels(self._name).inc()
        reason = reason_of(state)
        if reason != self.state.problem:
            self.state.problem = reason
            log.warning("sink.failed", extra={"sink": self._name, "reason": reason})
        self._record_delivered()
        await self._transport.close()
        self._at = self._cursor.state.done
        self._transport.mark_sent(self._at)

    def _count(self, delivered: int, dead: int) -> None:
        self.state.delivered += delivered
        self.state.dead += dead
        SINK_EVENTS.labels(self._name).inc(delivered)
        if dead:
            SINK_DEAD.labels(self._name).inc(dead)

    def _count_lost(self, first: int) -> None:
        """Count messages that the stream deleted before they were forwarded."""
        lost = first - self._at - 1
        if self._at and lost > 0:
            self.state.lost += lost
            SINK_LOST.labels(self._name).inc(lost)
            log.error("sink.lost", extra={"sink": self._name, "messages": lost})
