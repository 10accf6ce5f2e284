"""Threads in which large contents are scanned, so that the event loop and other callers go on."""

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

THREADS = 8
MOST_OF_ONE = 2  # threads that the contents of one caller use at the same time
T = TypeVar("T")


class ScanThreads:
    """A pool of threads. A scan counts against its caller until its thread has really ended.

    The time limit of a guard ends the wait for a scan, but not its thread.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, "guards")
        self._running: Counter[str] = Counter()
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}

    async def run(self, caller: str, work: Callable[[], T]) -> T:
        """Return the result of `work`, as soon as its caller may use another thread."""
        loop = asyncio.get_running_loop()
        while self._running[caller] >= MOST_OF_ONE:
            turn = loop.create_future()
            self._waiting.setdefault(caller, []).append(turn)
            await turn
        self._running[caller] += 1
        scan = self._pool.submit(work)

        def ended(_: Future[T]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._release, caller)

        scan.add_done_callback(ended)
        return await asyncio.wrap_future(scan)

    def _release(self, caller: str) -> None:
        self._running[caller] -= 1
        if self._running[caller] <= 0:
            del self._running[caller]
        for turn in self._waiting.pop(caller, []):
            if not turn.done():
                turn.set_result(None)
