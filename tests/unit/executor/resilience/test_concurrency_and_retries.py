"""How much is asked of a server: retries that are paid for, and places that follow how it does."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.errors import OverloadedError, UpstreamDeadError, UpstreamRefusedError
from toolbus_executor.resilience.adaptive_limit import MIN_LIMIT, START_LIMIT, WINDOW, AdaptiveLimit
from toolbus_executor.resilience.bulkhead import MAX_RETRY, MIN_RETRY, Bulkhead
from toolbus_executor.resilience.failure_log import MAX_ENTRIES, MAX_REASON, FailureLog
from toolbus_executor.resilience.retry import MAX_SAVED_RETRIES, START_RETRIES, RetryBudget


@given(st.integers(20, 2000))
def test_retries_are_never_more_than_a_fifth_of_the_calls(calls: int) -> None:
    budget, retries = RetryBudget(), 0
    for _ in range(calls):
        budget.earn()
        while budget.spend():
            retries += 1
    assert START_RETRIES <= retries <= calls * 0.2


def test_saved_retries_are_bounded() -> None:
    budget = RetryBudget()
    for _ in range(10_000):
        budget.earn()
    assert [budget.spend() for _ in range(MAX_SAVED_RETRIES + 1)] == [True] * MAX_SAVED_RETRIES + [
        False
    ]


def answered(pace: AdaptiveLimit, windows: int, seconds: float, *, busy: bool = True) -> None:
    for _ in range(windows * WINDOW):
        pace.record("tool", seconds, pace.limit if busy else 1)


def test_the_limit_grows_while_all_slots_are_used_at_usual_latency() -> None:
    pace = AdaptiveLimit(64)
    assert pace.limit == START_LIMIT
    answered(pace, 100, 0.05)
    assert pace.limit == 64


def test_the_limit_does_not_grow_while_slots_are_free() -> None:
    pace = AdaptiveLimit(64)
    answered(pace, 100, 0.05, busy=False)
    assert pace.limit == START_LIMIT


def test_the_limit_shrinks_by_quarters_on_high_latency_and_grows_by_one() -> None:
    pace = AdaptiveLimit(64)
    answered(pace, 2, 0.05)
    answered(pace, 1, 0.5)
    assert pace.limit == int((START_LIMIT + 2) * 0.75)
    low = pace.limit
    answered(pace, 1, 0.05)
    assert pace.limit == low + 1


def test_a_slow_tool_next_to_a_fast_one_does_not_shrink_the_limit() -> None:
    pace = AdaptiveLimit(64)
    for number in range(100 * WINDOW):
        slow = number % 2
        pace.record("slow" if slow else "fast", 5.0 if slow else 0.001, pace.limit)
    assert pace.limit == 64


def test_a_permanently_slower_server_regains_its_limit() -> None:
    pace = AdaptiveLimit(64)
    answered(pace, 2, 0.05)
    answered(pace, 200, 0.5)
    assert pace.limit == 64


@given(
    st.integers(1, 300),
    st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 100), st.integers(0, 400))),
)
def test_the_limit_stays_within_its_bounds(
    maximum: int, calls: list[tuple[str, float, int]]
) -> None:
    pace = AdaptiveLimit(maximum)
    for tool, seconds, under_way in calls * 4:
        pace.record(tool, seconds, under_way)
        assert min(MIN_LIMIT, maximum) <= pace.limit <= maximum


async def waiting_in(bulkhead: Bulkhead, calls: int) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(bulkhead.enter(60)) for _ in range(calls)]
    await asyncio.sleep(0)
    return tasks


async def test_a_full_bulkhead_rejects_at_once_with_a_retry_time() -> None:
    bulkhead = Bulkhead("slow", 2)
    tasks = await waiting_in(bulkhead, 4)
    assert (bulkhead.in_flight, bulkhead.waiting) == (2, 2)
    with pytest.raises(OverloadedError) as caught:
        await bulkhead.enter(60)
    assert caught.value.data["sent"] is False
    assert MIN_RETRY <= caught.value.data["retry_after"] <= MAX_RETRY
    assert caught.value.data["server"] == "slow"
    for _ in tasks:
        bulkhead.leave()
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert (bulkhead.in_flight, bulkhead.waiting) == (0, 0)


async def test_a_cancelled_waiter_leaves_the_queue() -> None:
    bulkhead = Bulkhead("hung", 1)
    await bulkhead.enter(60)
    for _ in range(3):
        (task,) = await waiting_in(bulkhead, 1)
        assert bulkhead.waiting == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert bulkhead.waiting == 0


async def test_a_reduced_limit_admits_no_call_until_enough_have_ended() -> None:
    bulkhead = Bulkhead("slow", 40)
    for _ in range(START_LIMIT):
        await bulkhead.enter(60)
    (task,) = await waiting_in(bulkhead, 1)
    for _ in range(WINDOW):
        bulkhead.record("tool", 0.05)
    for _ in range(WINDOW):
        bulkhead.record("tool", 1.0)
    assert bulkhead.in_flight == START_LIMIT + 1, "an added slot is used at once"
    assert bulkhead.slots == int((START_LIMIT + 1) * 0.75)
    late = await waiting_in(bulkhead, 1)
    while bulkhead.in_flight > bulkhead.slots:
        bulkhead.leave()
    assert bulkhead.waiting == 1
    bulkhead.leave()
    await asyncio.gather(task, *late)
    assert bulkhead.in_flight == bulkhead.slots


def test_the_latest_failures_are_kept_without_our_own_rejections() -> None:
    failures = FailureLog()
    failures.note(UpstreamRefusedError("Out of order", upstream_code=-1))
    failures.note(OverloadedError("full"))
    assert failures.last == ""
    for number in range(MAX_ENTRIES + 3):
        failures.note(UpstreamDeadError(f"{number} " + "x" * 2 * MAX_REASON))
    assert len(failures.recent()) == MAX_ENTRIES
    assert failures.last.startswith(f"{MAX_ENTRIES + 2} ")
    assert len(failures.last) == MAX_REASON
