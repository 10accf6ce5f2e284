"""Bulkhead of one server. It limits running and waiting calls, and rejects all further calls."""

import asyncio
from collections import deque
from contextlib import suppress

from toolbus_common.errors import OverloadedError
from toolbus_common.observability.metrics import UPSTREAM_CONCURRENCY_LIMIT
from toolbus_executor.resilience.adaptive_limit import START_LIMIT, AdaptiveLimit
from toolbus_executor.tracing import TRACER

MIN_RETRY, MAX_RETRY = 1.0, 30.0  # bounds of `retry_after` in seconds


class Bulkhead:
    """Concurrency slots of one server, assigned in the order of the calls' arrival.

    At most `size` calls run, and at most `size` calls wait. Within `size`, the adaptive limit sets
    the number of slots. `start` is its first value; it only changes if durations are recorded.
    """

    def __init__(self, server: str, size: int, start: int = START_LIMIT) -> None:
        self._server = server
        self._size = size
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._limit = AdaptiveLimit(size, start)
        self._slots_metric = UPSTREAM_CONCURRENCY_LIMIT.labels(server)
        self._slots_metric.set(self._limit.limit)
        self.in_flight = 0

    @property
    def slots(self) -> int:
        """Number of concurrency slots."""
        return self._limit.limit

    @property
    def waiting(self) -> int:
        """Number of calls that wait for a slot."""
        return len(self._waiting)

    def try_enter(self) -> bool:
        """Take a slot if one is free; return whether it was."""
        if self.in_flight >= self._limit.limit:
            return False
        self.in_flight += 1
        return True

    async def enter(self, seconds: float) -> None:
        """Take a slot. Wait for one for up to `seconds`.

        Raises:
            OverloadedError: the queue is full.
            TimeoutError: no slot became free in time.

        """
        if self.try_enter():
            return
        if len(self._waiting) >= self._size:
            raise self._overloaded()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            with TRACER.below("toolbus.queue"):
                async with asyncio.timeout(seconds):
                    await turn  # a call that ends passes on its slot
        except (TimeoutError, asyncio.CancelledError):
            with suppress(ValueError):
                self._waiting.remove(turn)
            if turn.done() and not turn.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """Pass the slot to the next call in the queue, or free the slot."""
        self.in_flight -= 1
        if self._waiting:
            self._admit_waiting()

    def record(self, tool: str, seconds: float) -> None:
        """Record the duration of a call. Call this before `leave`."""
        if self._limit.record(tool, seconds, self.in_flight):
            self._slots_metric.set(self._limit.limit)
            self._admit_waiting()

    def _admit_waiting(self) -> None:
        while self._waiting and self.in_flight < self._limit.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self.in_flight += 1
                turn.set_result(None)

    def _overloaded(self) -> OverloadedError:
        turns = 1 + len(self._waiting) / self._limit.limit
        wait = min(MAX_RETRY, max(MIN_RETRY, turns * self._limit.takes))
        return OverloadedError(
            f"{self._server} has {self.in_flight} running calls and {len(self._waiting)} "
            f"waiting; retry in {wait:.1f} s.",
            sent=False,
            server=self._server,
            retry_after=round(wait, 1),
        )
