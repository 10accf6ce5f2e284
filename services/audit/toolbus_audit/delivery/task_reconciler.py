"""One task per configured entry, started, restarted and ended as entries change."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from toolbus_common.concurrency import end, in_background
from toolbus_common.service.reconciler import Reconciler

log = logging.getLogger(__name__)

E = TypeVar("E")
LOOK_SECONDS = 0.5
RETRY_SECONDS = 5.0


class TaskReconciler(Generic[E]):
    """Runner of `work` for each entry that `configured` returns; work that ends is restarted."""

    def __init__(
        self,
        configured: Callable[[], Mapping[str, E]],
        work: Callable[[str, E], Awaitable[None]],
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._configured = configured
        self._work = work
        self._retry_seconds = retry_seconds
        self._tasks: Reconciler[E, asyncio.Task[None]] = Reconciler(self._start, self._stop)
        self._ending: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Reconcile while the context is entered."""
        async with in_background(self.run()):
            yield

    async def run(self) -> None:
        """Reconcile forever. On cancellation, end every task."""
        try:
            while True:
                await self._tasks.reconcile(self._configured())
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            await end(*self._tasks, *self._ending)

    def _start(self, name: str, entry: E) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(self._run_entry(name, entry))

    async def _run_entry(self, name: str, entry: E) -> None:
        while True:
            try:
                await self._work(name, entry)
            except Exception:
                log.exception("reconciler.task_failed", extra={"entry": name})
            await asyncio.sleep(self._retry_seconds)

    async def _stop(self, task: asyncio.Task[None], /, *, removed: bool) -> None:  # noqa: ARG002
        self._ending.add(task)
        await end(task)
        self._ending.discard(task)
