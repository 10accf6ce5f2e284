"""Batching of small requests that arrive at the same time into one round trip."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Batch(Generic[T, R]):
    """Items that are flushed together. The flush function ends it once: `resolve` or `reject`."""

    __slots__ = ("_ended", "_futures", "_task", "items")

    def __init__(
        self,
        items: list[T],
        futures: list[asyncio.Future[R]],
        ended: Callable[["Batch[T, R]"], None],
    ) -> None:
        self.items = items
        self._futures = futures
        self._ended = ended
        self._task: asyncio.Task[Sequence[R]] | None = None

    def resolve(self, results: Sequence[R]) -> None:
        """End the batch with one result for each item."""
        if len(results) != len(self.items):
            self.reject(ValueError(f"{len(results)} results for {len(self.items)} items"))
            return
        for future, result in zip(self._futures, results, strict=True):
            if not future.done():
                future.set_result(result)
        self._ended(self)

    def reject(self, error: BaseException) -> None:
        """End the batch with an error for every item."""
        for future in self._futures:
            if not future.done():
                future.set_exception(error)
        self._ended(self)

    def run(self, work: Coroutine[Any, Any, Sequence[R]]) -> None:
        """End the batch with the result or the error of a coroutine, which runs in a task."""
        self._task = asyncio.get_running_loop().create_task(work)
        self._task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[Sequence[R]]) -> None:
        if task.cancelled():
            self.reject(asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            self.reject(error)
        else:
            self.resolve(task.result())


class Batcher(Generic[T, R]):
    """Collector of items that are flushed together, in at most `concurrency` batches at a time.

    `flush` starts to send a batch and returns; the reply ends the batch. The first item of an idle
    batcher is flushed at the end of the event loop's turn, so a single call is not delayed; while
    every slot is busy, items gather for the next batch. With `linger`, an idle batcher waits that
    many seconds before it flushes.
    """

    def __init__(
        self,
        flush: Callable[[Batch[T, R]], None],
        *,
        max_items: int = 256,
        concurrency: int = 2,
        linger: float = 0.0,
    ) -> None:
        self._flush = flush
        self._max_items = max_items
        self._linger = linger
        self._concurrency = concurrency
        self._items: list[T] = []
        self._futures: list[asyncio.Future[R]] = []
        self._scheduled = False
        self._in_flight: set[Batch[T, R]] = set()
        self._batch_ended = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._empty_context = Context()  # because a batch contains items of several tasks

    def add(self, item: T) -> asyncio.Future[R]:
        """Add an item to the next batch, and return a future.

        The future ends with the item's result, or with the error of the whole batch.
        """
        loop = self._loop
        if loop is None:  # cached: on 3.11 each look-up is a system call
            loop = self._loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._items.append(item)
        self._futures.append(future)
        if not self._scheduled and len(self._in_flight) < self._concurrency:
            self._scheduled = True
            if self._linger:
                loop.call_later(self._linger, self._start, context=self._empty_context)
            else:
                loop.call_soon(self._start, context=self._empty_context)
        return future

    async def drain(self) -> None:
        """Wait until no item is waiting or in flight."""
        while self._items or self._in_flight:
            self._empty_context.run(self._start)
            if self._in_flight:
                self._batch_ended.clear()
                await self._batch_ended.wait()

    def _start(self) -> None:
        """Flush waiting items. `_scheduled` remains set meanwhile, to prevent recursion."""
        self._scheduled = True
        while self._items and len(self._in_flight) < self._concurrency:
            size = self._max_items
            batch = Batch(self._items[:size], self._futures[:size], self._end)
            del self._items[:size], self._futures[:size]
            self._in_flight.add(batch)
            try:
                self._flush(batch)
            except BaseException as error:
                batch.reject(error)
                if not isinstance(error, Exception):
                    raise
        self._scheduled = False

    def _end(self, batch: Batch[T, R]) -> None:
        self._in_flight.discard(batch)
        self._batch_ended.set()
        if self._items and not self._scheduled:
            self._empty_context.run(self._start)
