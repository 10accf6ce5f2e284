"""Delivers checkpoints to those outside: of each customer's log the newest, until it is taken."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from toolbus_audit.clickhouse.errors import StoreDownError
from toolbus_audit.transparency_log.sealer import Log
from toolbus_common.errors import BusDownError

log = logging.getLogger(__name__)

FIRST_RETRY, SLOWEST_RETRY = 1.0, 300.0
MOST_THREADS = 16

Line = tuple[str, str]  # a receiver and a customer
Deliver = Callable[[Line, Log], Awaitable[float]]
T = TypeVar("T")


class NotTakenError(Exception):
    """The receiver did not take it; the sentence says why. It is tried again."""


class Newest:
    """Call `deliver` with the newest checkpoint of each line, again and again until it returns.

    It returns how many seconds the line rests before the next. One receiver that is down holds up
    neither another nor the sealing.
    """

    def __init__(self, kind: str, deliver: Deliver, first_retry: float = FIRST_RETRY) -> None:
        self._kind = kind
        self._deliver = deliver
        self._first_retry = first_retry
        self._threads = ThreadPoolExecutor(MOST_THREADS, kind)
        self._newest: dict[Line, Log] = {}
        self._tasks: dict[Line, asyncio.Task[None]] = {}
        self.why: dict[Line, str] = {}  # what was not taken, and why

    def offer(self, line: Line, newest: Log) -> None:
        """Take a checkpoint, unless a larger one waits; return at once."""
        waiting = self._newest.get(line)
        if waiting and waiting.stream == newest.stream and waiting.size > newest.size:
            return
        self._newest[line] = newest
        task = self._tasks.get(line)
        if task is None or task.done():
            self._tasks[line] = asyncio.get_running_loop().create_task(self._work(line))

    async def close(self) -> None:
        """Stop; what was not taken is offered again after the next start."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run blocking work beside the loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _work(self, line: Line) -> None:
        delay = self._first_retry
        while line in self._newest:
            newest = self._newest[line]
            try:
                rest = await self._deliver(line, newest)
            except (NotTakenError, BusDownError, StoreDownError) as error:
                self._failed(line, str(error))
            except Exception as error:
                log.exception("checkpoint.failed_inside", extra={"receiver": line[0]})
                self._failed(line, f"an error inside audit ({type(error).__name__}); see its log")
            else:
                self.why.pop(line, None)
                delay = self._first_retry
                if self._newest[line] is newest:
                    del self._newest[line]
                await asyncio.sleep(rest)
                continue
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
            delay = min(delay * 2, SLOWEST_RETRY)

    def _failed(self, line: Line, reason: str) -> None:
        self.why[line] = reason
        told = {"kind": self._kind, "receiver": line[0], "customer": line[1], "reason": reason}
        log.warning("checkpoint.not_taken", extra=told)
