"""The bulkhead of one server: so many calls at once, as many waiting, the rest refused at once."""

import asyncio
from collections import deque

from toolbus_common.errors import OverloadedError


class Bulkhead:
    """First come, first served; a slow server fills its own queue and nobody else's."""

    def __init__(self, server: str, size: int) -> None:
        self._server = server
        self._size = size
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.in_flight = 0

    async def enter(self, seconds: float) -> None:
        """Take a place. Raises `OverloadedError` (queue full) or `TimeoutError` (no turn)."""
        if self.in_flight < self._size:
            self.in_flight += 1
            return
        if len(self._waiting) >= self._size:
            raise OverloadedError(
                f"{self._server} has {self._size} calls under way and as many waiting; retry.",
                sent=False,
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(seconds):
                await turn  # whoever leaves hands over the place itself
        except (TimeoutError, asyncio.CancelledError):
            if turn.done() and not turn.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """Give the place to the next, or back."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.in_flight -= 1
