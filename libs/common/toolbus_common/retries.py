"""Retries with growing pauses, on tenacity; the retries of calls have a budget of their own."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_never
from tenacity.retry import RetryBaseT
from tenacity.stop import StopBaseT
from tenacity.wait import wait_base, wait_exponential

Failed = Callable[[RetryCallState], Awaitable[None] | None]


class Backoff(wait_base):
    """Pause that doubles with each failure up to a limit, and is up to 20 % shorter or longer.

    Tenacity's own jitter ends at the limit: receivers that failed together would then be tried
    together again.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._doubling = wait_exponential(multiplier=first, max=longest)

    def __call__(self, retry_state: RetryCallState) -> float:
        """Return the seconds before the next attempt."""
        return self._doubling(retry_state) * random.uniform(0.8, 1.2)  # noqa: S311 - no secret


def retrying(
    wait: wait_base,
    on: type[Exception] | tuple[type[Exception], ...] | RetryBaseT,
    *,
    failed: Failed | None = None,
    stop: StopBaseT = stop_never,
    sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
) -> AsyncRetrying:
    """Return what calls a function until it raises none of these errors, or `stop` is reached.

    `on` can also be a condition of tenacity. `failed` is called after each failure that another
    attempt follows. The last error is raised. One object serves one series of attempts: tenacity
    stores their state in it. A cancellation ends an attempt or a pause at once.
    """
    condition = retry_if_exception_type(on) if isinstance(on, type | tuple) else on
    return AsyncRetrying(
        wait=wait, retry=condition, before_sleep=failed, stop=stop, sleep=sleep, reraise=True
    )


def reason_of(state: RetryCallState) -> str:
    """Return why the latest attempt failed."""
    return str(error_of(state))


def error_of(state: RetryCallState) -> BaseException:
    """Return the error of the latest attempt, which must have failed."""
    error = state.outcome.exception() if state.outcome is not None else None
    if error is None:
        raise ValueError("the latest attempt did not fail")
    return error
