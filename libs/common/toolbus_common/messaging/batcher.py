"""Batching of small requests that arrive at the same time into one round trip."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Collector of items that are flushed together, in at most `concurrency` batches at a time.

    The first item of an idle batcher is flushed at the end of the event loop's turn, so a single
    call is not delayed; while every slot is busy, items gather for the next batch. With `linger`,
    an idle batcher waits that many seconds before it flushes.
    """

    def __init__(
        self,
        flush: Callable[[list[T]], Awaitable[Sequence[R]]],
        *,
        max_items: int = 256,
        concurrency: int = 2,
        linger: float = 0.0,
    ) -> None:
        self._flush = flush
        self._max_items = max_items
        self._linger = linger
        self._free_slots = concurrency
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._empty_context = Context()  # because a batch contains items of several tasks

    def add(self, item: T) -> asyncio.Future[R]:
        """Add an item to the next batch.

        The future resolves to its result, or to the batch's error.
        """
        loop = self._loop
        if loop is None:  # cached: on 3.11 each look-up is a system call
            loop = self._loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, future))
        if not self._scheduled and self._free_slots:
            self._scheduled = True
            if self._linger:
                loop.call_later(self._linger, self._start, context=self._empty_context)
            else:
                loop.call_soon(self._start, context=self._empty_context)
        return future

    async def drain(self) -> None:
        """Wait until no item is waiting or in flight."""
        while self._waiting or self._tasks:
            self._start()
            await asyncio.sleep(0)
            if self._tasks:
                await asyncio.wait(self._tasks)

    def _start(self) -> None:
        self._scheduled = False
        while self._waiting and self._free_slots:
            batch = self._waiting[: self._max_items]
            del self._waiting[: self._max_items]
            self._free_slots -= 1
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._free_slots += 1
        if self._waiting and not self._scheduled:
            self._start()

    async def _run(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._flush([item for item, _ in batch])
            if len(results) != len(batch):
                raise ValueError(f"{len(results)} results for {len(batch)} items")  # noqa: TRY301
        except BaseException as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)
