"""Reconciler: one task per configured entry, started, restarted and ended as entries change."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from toolbus_common.concurrency import end, in_background

log = logging.getLogger(__name__)

E = TypeVar("E")
LOOK_SECONDS = 0.5
RETRY_SECONDS = 5.0


class Reconciler(Generic[E]):
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
        self._tasks: dict[str, tuple[E, asyncio.Task[None]]] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Reconcile while the context is entered."""
        async with in_background(self.run()):
            yield

    async def run(self) -> None:
        """Reconcile without end. On cancellation, every task ends."""
        try:
            while True:
                await self._reconcile()
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            await end(*(task for _, task in self._tasks.values()))

    async def _reconcile(self) -> None:
        configured = self._configured()
        for name, (entry, task) in list(self._tasks.items()):
            if configured.get(name) != entry:
                await end(task)
                del self._tasks[name]
        for name, entry in configured.items():
            if name not in self._tasks:
                task = asyncio.get_running_loop().create_task(self._run_entry(name, entry))
                self._tasks[name] = entry, task

    async def _run_entry(self, name: str, entry: E) -> None:
        while True:
            try:
                await self._work(name, entry)
            except Exception:
                log.exception("reconciler.task_failed", extra={"entry": name})
            await asyncio.sleep(self._retry_seconds)
