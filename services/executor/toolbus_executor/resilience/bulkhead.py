"""The bulkhead of one server: so many calls at once, some waiting, the rest refused at once."""

import asyncio
from collections import deque
from contextlib import suppress

from toolbus_common.errors import OverloadedError
from toolbus_common.observability.metrics import UPSTREAM_PLACES
from toolbus_executor.resilience.adaptive_limit import Adaptive
from toolbus_executor.tracing import TRACER

SOONEST, LATEST = 1.0, 30.0  # seconds after which a refused caller is asked to come back


class Bulkhead:
    """First come, first served; a slow server fills its own queue and nobody else's.

    At most `size` calls are under way and as many wait; how many places there are follows from
    how the server does.
    """

    def __init__(self, server: str, size: int) -> None:
        self._server = server
        self._size = size
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._pace = Adaptive(size)
        self._places = UPSTREAM_PLACES.labels(server)
        self._places.set(self._pace.limit)
        self.in_flight = 0

    @property
    def places(self) -> int:
        """How many calls may be under way now."""
        return self._pace.limit

    @property
    def waiting(self) -> int:
        """How many calls wait for a place."""
        return len(self._waiting)

    async def enter(self, seconds: float) -> None:
        """Take a place. Raises `OverloadedError` (queue full) or `TimeoutError` (no turn)."""
        if self.in_flight < self._pace.limit:
            self.in_flight += 1
            return
        if len(self._waiting) >= self._size:
            raise self._full()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            with TRACER.below("toolbus.queue"):
                async with asyncio.timeout(seconds):
                    await turn  # whoever leaves hands over the place itself
        except (TimeoutError, asyncio.CancelledError):
            with suppress(ValueError):
                self._waiting.remove(turn)
            if turn.done() and not turn.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """Give the place to the next, or back."""
        self.in_flight -= 1
        self._let_in()

    def took(self, tool: str, seconds: float) -> None:
        """Learn from how long a call took, before it leaves."""
        if self._pace.took(tool, seconds, self.in_flight):
            self._places.set(self._pace.limit)
            self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self.in_flight < self._pace.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self.in_flight += 1
                turn.set_result(None)

    def _full(self) -> OverloadedError:
        turns = 1 + len(self._waiting) / self._pace.limit
        wait = min(LATEST, max(SOONEST, turns * self._pace.takes))
        return OverloadedError(
            f"{self._server} has {self.in_flight} calls under way and {len(self._waiting)} "
            f"waiting; retry in {wait:.1f} s.",
            sent=False,
            server=self._server,
            retry_after=round(wait, 1),
        )
