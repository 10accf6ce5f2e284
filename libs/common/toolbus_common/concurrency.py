"""Ending tasks: cancelled until they have ended; work in time, and the first of several to end."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

AGAIN_SECONDS = 0.5
Result = TypeVar("Result")


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks, and again until each has ended: how they end is nobody's concern any more.

    Once is not enough: a cancellation that comes together with what a task waits for can be lost
    in the waiting (in the bus's client, and in `asyncio.wait_for` before Python 3.12).
    """
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=AGAIN_SECONDS)


async def in_time(work: Coroutine[Any, Any, Result], seconds: float) -> Result:
    """What some work gives or raises. Where it takes longer it is ended: raises `TimeoutError`.

    `asyncio.timeout` cancels once, and work that loses that would go on for ever.
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
    """What the first of them to end gives or raises; the others are ended."""
    tasks = [asyncio.ensure_future(each) for each in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()
    finally:
        await end(*tasks)
