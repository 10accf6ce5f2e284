"""A task for each declared entry: begun, begun anew and ended as the declaration changes."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from toolbus_common.concurrency import end

log = logging.getLogger(__name__)

E = TypeVar("E")
LOOK_SECONDS = 0.5
AGAIN_SECONDS = 5.0


class Tended(Generic[E]):
    """`declared` gives the entries as they are now; `work` is done for each, without end."""

    def __init__(
        self,
        declared: Callable[[], Mapping[str, E]],
        work: Callable[[str, E], Awaitable[None]],
        again: float = AGAIN_SECONDS,
    ) -> None:
        self._declared = declared
        self._work = work
        self._again = again
        self._tasks: dict[str, tuple[E, asyncio.Task[None]]] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look after what is declared while this is entered."""
        task = asyncio.create_task(self.run())
        try:
            yield
        finally:
            await end(task)

    async def run(self) -> None:
        """Without end: look after what is declared. Cancelled, it ends every task."""
        try:
            while True:
                await self._follow()
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            await end(*(task for _, task in self._tasks.values()))

    async def _follow(self) -> None:
        declared = self._declared()
        for name, (entry, task) in list(self._tasks.items()):
            if declared.get(name) != entry:
                await end(task)
                del self._tasks[name]
        for name, entry in declared.items():
            if name not in self._tasks:
                task = asyncio.get_running_loop().create_task(self._tend(name, entry))
                self._tasks[name] = entry, task

    async def _tend(self, name: str, entry: E) -> None:
        while True:
            try:
                await self._work(name, entry)
            except Exception:
                log.exception("tended.failed", extra={"entry": name})
            await asyncio.sleep(self._again)
