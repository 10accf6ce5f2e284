"""Retries with growing pauses, based on tenacity. Retries of tool calls have a separate budget."""

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
    """Pause that doubles with each failure up to a limit, with a jitter of 20 %.

    The jitter also applies at the limit, unlike tenacity's jitter. Otherwise, receivers that failed
    at the same time would be tried at the same time again.
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
    """Return an object that calls a function until it raises none of the errors `on`.

    `on` can also be a condition of tenacity. `failed` is called after each failure, before the
    pause. When `stop` is reached, the last error is raised. An object must be used for one series
    of attempts only, because tenacity stores the state of the attempts in the object. A
    cancellation ends an attempt or a pause immediately.
    """
    condition = retry_if_exception_type(on) if isinstance(on, type | tuple) else on
    return AsyncRetrying(
        wait=wait, retry=condition, before_sleep=failed, stop=stop, sleep=sleep, reraise=True
    )


def reason_of(state: RetryCallState) -> str:
    """Return the text of the latest attempt's error."""
    return str(error_of(state))


def error_of(state: RetryCallState) -> BaseException:
    """Return the error of the latest attempt. Raises `ValueError` if the attempt did not fail."""
    error = state.outcome.exception() if state.outcome is not None else None
    if error is None:
        raise ValueError("the latest attempt did not fail")
    return error
