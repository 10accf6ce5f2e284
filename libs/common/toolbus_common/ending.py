"""Ending tasks: cancelled until they have ended."""

import asyncio
from typing import Any

AGAIN_SECONDS = 0.5


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks, and again until each has ended: how they end is nobody's concern any more.

    Once is not enough: a cancellation that comes together with what a task waits for can be lost
    in the waiting (in the bus's client, and in `asyncio.wait_for` before Python 3.12).
    """
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=AGAIN_SECONDS)
