"""Bounded waits for a condition."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

PATIENCE = 90.0  # seconds; a bound for a broken run
PAUSE, LONGEST_PAUSE = 0.02, 0.2  # a question to a gateway costs it some milliseconds


async def until(condition: Callable[[], Any], what: str = "", seconds: float = PATIENCE) -> Any:
    """Return the first true value of a condition. Raises `AssertionError` after the time limit."""
    give_up = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < give_up, f"never came: {what or condition}"
        await asyncio.sleep(0.005)
    return value


async def until_async(
    question: Callable[[], Awaitable[Any]], what: str = "", seconds: float = PATIENCE
) -> Any:
    """Return the first true value of an asynchronous condition, as `until` does."""
    began = time.monotonic()
    while not (value := await question()):
        assert time.monotonic() < began + seconds, f"never came: {what or question}"
        await asyncio.sleep(_pause(began))
    return value


def until_blocking(condition: Callable[[], Any], what: str = "", seconds: float = PATIENCE) -> Any:
    """Return the first true value of a condition, as `until` does, outside an event loop."""
    began = time.monotonic()
    while not (value := condition()):
        assert time.monotonic() < began + seconds, f"never came: {what or condition}"
        time.sleep(_pause(began))
    return value


def _pause(began: float) -> float:
    """Return the seconds before the next question: a tenth of the time so far, within limits."""
    return min(LONGEST_PAUSE, max(PAUSE, (time.monotonic() - began) / 10))
