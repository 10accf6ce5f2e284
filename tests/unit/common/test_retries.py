"""Retries with growing pauses: what is retried, how long each pause is, and how they end."""

import asyncio
from collections.abc import Callable

import pytest
from tenacity import RetryCallState, retry_if_exception, stop_after_attempt

from toolbus_common.concurrency import end
from toolbus_common.retries import Backoff, error_of, reason_of, retrying


class Work:
    """Work that fails with these errors, one after another, and then returns 7."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.attempts = 0

    async def __call__(self) -> int:
        self.attempts += 1
        if self.errors:
            raise self.errors.pop(0)
        return 7


class Pauses:
    """A sleep that takes no time and records how long it should have been."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


async def test_pauses_double_up_to_the_limit_and_vary_there_too() -> None:
    pauses, work = Pauses(), Work(*[OSError()] * 40)
    assert await retrying(Backoff(1.0, 8.0), OSError, sleep=pauses)(work) == 7
    expected = [1.0, 2.0, 4.0, *[8.0] * 37]
    assert all(
        0.8 * each <= seconds <= 1.2 * each
        for each, seconds in zip(expected, pauses.seconds, strict=True)
    )
    assert len(set(pauses.seconds[3:])) > 1


async def test_the_pause_stays_at_the_limit_after_very_many_failures() -> None:
    pauses, work = Pauses(), Work(*[OSError()] * 1200)
    await retrying(Backoff(1.0, 8.0), OSError, sleep=pauses)(work)
    assert 6.4 <= pauses.seconds[-1] <= 9.6


@pytest.mark.parametrize(
    "on", [OSError, (OSError, KeyError), retry_if_exception(lambda e: isinstance(e, OSError))]
)
async def test_another_error_is_raised_at_once(on: type[Exception]) -> None:
    work = Work(OSError(), ValueError("no"), OSError())
    with pytest.raises(ValueError, match="no"):
        await retrying(Backoff(1.0, 8.0), on, sleep=Pauses())(work)
    assert work.attempts == 2


async def test_each_failure_that_another_attempt_follows_is_reported_and_the_last_raised() -> None:
    reasons: list[str] = []

    def failed(state: RetryCallState) -> None:
        reasons.append(reason_of(state))

    work = Work(OSError("a"), OSError("b"), OSError("c"), OSError("d"))
    retry = retrying(
        Backoff(1.0, 8.0), OSError, failed=failed, stop=stop_after_attempt(3), sleep=Pauses()
    )
    with pytest.raises(OSError, match="c"):
        await retry(work)
    assert (reasons, work.attempts) == (["a", "b"], 3)


async def test_concurrent_series_do_not_share_their_state() -> None:
    def series(failures: int) -> tuple[Pauses, Work]:
        return Pauses(), Work(*[OSError()] * failures)

    all_series = [series(number) for number in range(5)]
    await asyncio.gather(
        *(retrying(Backoff(1.0, 8.0), OSError, sleep=pauses)(work) for pauses, work in all_series)
    )
    assert [work.attempts for _, work in all_series] == [1, 2, 3, 4, 5]
    assert [len(pauses.seconds) for pauses, _ in all_series] == [0, 1, 2, 3, 4]


def _during_a_pause(in_progress: asyncio.Event) -> "asyncio.Task[int]":
    retry = retrying(Backoff(3600.0, 3600.0), OSError, failed=lambda _: in_progress.set())
    return asyncio.create_task(retry(Work(OSError(), OSError())))


def _during_an_attempt(in_progress: asyncio.Event) -> "asyncio.Task[int]":
    async def work() -> int:
        in_progress.set()
        never: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        return await never

    return asyncio.create_task(retrying(Backoff(3600.0, 3600.0), Exception)(work))


@pytest.mark.parametrize("started", [_during_a_pause, _during_an_attempt])
async def test_a_cancellation_ends_it_at_once(
    started: Callable[[asyncio.Event], "asyncio.Task[int]"],
) -> None:
    in_progress = asyncio.Event()
    task = started(in_progress)
    await in_progress.wait()
    await end(task)
    assert task.cancelled()


def test_an_attempt_that_did_not_fail_has_no_reason() -> None:
    state = RetryCallState(retrying(Backoff(1.0, 8.0), OSError), None, (), {})
    with pytest.raises(ValueError, match="did not fail"):
        error_of(state)
