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


def test_a_long_good_time_saves_up_only_so_many_retries() -> None:
    budget = RetryBudget()
    for _ in range(10_000):
        budget.earn()
    assert [budget.spend() for _ in range(MAX_SAVED_RETRIES + 1)] == [True] * MAX_SAVED_RETRIES + [
        False
    ]


def answered(pace: AdaptiveLimit, windows: int, seconds: float, *, busy: bool = True) -> None:
    for _ in range(windows * WINDOW):
        pace.record("tool", seconds, pace.limit if busy else 1)


def test_places_grow_to_the_bound_while_all_are_used_and_calls_take_their_usual_time() -> None:
    pace = AdaptiveLimit(64)
    assert pace.limit == START_LIMIT
    answered(pace, 100, 0.05)
    assert pace.limit == 64


def test_places_nobody_uses_are_not_added() -> None:
    pace = AdaptiveLimit(64)
    answered(pace, 100, 0.05, busy=False)
    assert pace.limit == START_LIMIT


def test_places_go_by_quarters_when_calls_take_longer_and_come_back_one_by_one() -> None:
    pace = AdaptiveLimit(64)
    answered(pace, 2, 0.05)
    answered(pace, 1, 0.5)
    assert pace.limit == int((START_LIMIT + 2) * 0.75)
    low = pace.limit
    answered(pace, 1, 0.05)
    assert pace.limit == low + 1


def test_a_slow_tool_beside_a_fast_one_costs_no_places() -> None:
    pace = AdaptiveLimit(64)
    for number in range(100 * WINDOW):
        slow = number % 2
        pace.record("slow" if slow else "fast", 5.0 if slow else 0.001, pace.limit)
    assert pace.limit == 64


def test_a_server_that_has_become_slow_for_good_gets_its_places_back() -> None:
    pace = AdaptiveLimit(64)
    answered(pace, 2, 0.05)
    answered(pace, 200, 0.5)
    assert pace.limit == 64


@given(
    st.integers(1, 300),
    st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 100), st.integers(0, 400))),
)
def test_places_stay_within_their_bounds(most: int, calls: list[tuple[str, float, int]]) -> None:
    pace = AdaptiveLimit(most)
    for tool, seconds, under_way in calls * 4:
        pace.record(tool, seconds, under_way)
        assert min(MIN_LIMIT, most) <= pace.limit <= most


async def waiting_in(bulkhead: Bulkhead, calls: int) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(bulkhead.enter(60)) for _ in range(calls)]
    await asyncio.sleep(0)
    return tasks


async def test_a_full_bulkhead_refuses_at_once_and_says_when_to_come_back() -> None:
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


async def test_who_gave_up_waiting_takes_no_room_in_the_queue() -> None:
    bulkhead = Bulkhead("hung", 1)
    await bulkhead.enter(60)
    for _ in range(3):
        (task,) = await waiting_in(bulkhead, 1)
        assert bulkhead.waiting == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert bulkhead.waiting == 0


async def test_fewer_places_let_nobody_in_until_enough_have_left() -> None:
    bulkhead = Bulkhead("slow", 40)
    for _ in range(START_LIMIT):
        await bulkhead.enter(60)
    (task,) = await waiting_in(bulkhead, 1)
    for _ in range(WINDOW):
        bulkhead.record("tool", 0.05)
    for _ in range(WINDOW):
        bulkhead.record("tool", 1.0)
    assert bulkhead.in_flight == START_LIMIT + 1, "the place that was added is taken at once"
    assert bulkhead.slots == int((START_LIMIT + 1) * 0.75)
    late = await waiting_in(bulkhead, 1)
    while bulkhead.in_flight > bulkhead.slots:
        bulkhead.leave()
    assert bulkhead.waiting == 1
    bulkhead.leave()
    await asyncio.gather(task, *late)
    assert bulkhead.in_flight == bulkhead.slots


def test_the_latest_failures_of_a_server_are_kept_and_no_refusal_of_ours() -> None:
    failures = FailureLog()
    failures.note(UpstreamRefusedError("Out of order", upstream_code=-1))
    failures.note(OverloadedError("full"))
    assert failures.last == ""
    for number in range(MAX_ENTRIES + 3):
        failures.note(UpstreamDeadError(f"{number} " + "x" * 2 * MAX_REASON))
    assert len(failures.recent()) == MAX_ENTRIES
    assert failures.last.startswith(f"{MAX_ENTRIES + 2} ")
    assert len(failures.last) == MAX_REASON
