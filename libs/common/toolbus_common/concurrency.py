"""Functions to run work in the background, limit its time, race several tasks, and cancel tasks."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

RETRY_SECONDS = 0.5
Result = TypeVar("Result")


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks repeatedly until each has ended, and discard their results and errors.

    A single cancellation is not enough. A cancellation that arrives together with the awaited
    result can be lost (in the NATS client, and in `asyncio.wait_for` before Python 3.12). If the
    calling task itself is cancelled, `CancelledError` is raised after all tasks have ended.
    """
    cancelled: asyncio.CancelledError | None = None
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        try:
            await asyncio.wait(left, timeout=RETRY_SECONDS)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


class Tasks:
    """A set of background tasks.

    A task is removed when it ends. The event loop's exception handler reports its failure.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` as a background task and return the task."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def end(self) -> None:
        """Cancel all tasks until each has ended."""
        await end(*self._running)

    async def finish(self, seconds: float | None = None) -> None:
        """Wait until all tasks have ended, at most `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._running:
                    await asyncio.wait(self._running)


async def completely(work: Awaitable[Result]) -> Result:
    """Return the result of `work`, which runs to its end even if the calling task is cancelled.

    The cancellation is raised after the end of `work`. Use this function for cleanup, because `end`
    cancels repeatedly and would otherwise interrupt the cleanup.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return task.result()


@asynccontextmanager
async def in_background(*work: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    """Run each `work` as a task. On leaving the context, cancel the tasks until all have ended."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        await end(*tasks)


async def in_time(work: Coroutine[Any, Any, Result], seconds: float) -> Result:
    """Return the result of `work`, or raise its error. Raises `TimeoutError` after `seconds`.

    `work` has ended when this function returns. `asyncio.timeout` cancels only once, so work that
    loses the cancellation would continue.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task], timeout=seconds)
        if not task.done():
            raise TimeoutError
        return task.result()
    finally:
        await end(task)


async def first_of(*waits: Coroutine[Any, Any, Result]) -> Result:
    """Return the result, or raise the error, of the coroutine that ends first; cancel the others.

    If several end in the same iteration of the event loop, the first one in argument order is used.
    """
    tasks = [asyncio.ensure_future(each) for each in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task.done()).result()
    finally:
        await end(*tasks)
