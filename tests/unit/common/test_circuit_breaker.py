"""The circuit breaker: opening, the probe after the pause, closing."""

from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.circuit_breaker import Breaker, State


def failed(breaker: Breaker, times: int, now: float = 0.0) -> Breaker:
    for _ in range(times):
        breaker.failed(now)
    return breaker


def test_five_failures_in_a_row_open_the_breaker() -> None:
    breaker = failed(Breaker(), 4)
    assert breaker.admits(0.0)
    assert breaker.failed(0.0)
    assert not breaker.admits(1.0)


def test_a_success_resets_the_failure_count() -> None:
    breaker = failed(Breaker(), 4)
    breaker.succeeded()
    assert not breaker.failed(0.0)


def test_after_the_pause_one_probe_is_admitted() -> None:
    breaker = failed(Breaker(), 5)
    assert breaker.admits(5.0)
    assert breaker.state is State.HALF_OPEN
    assert not breaker.admits(5.0)


def test_a_failed_probe_doubles_the_pause_and_a_successful_one_closes() -> None:
    breaker = failed(Breaker(), 5)
    breaker.admits(5.0)
    assert breaker.failed(5.0)
    assert breaker.retry_at == 15.0
    breaker.admits(15.0)
    assert breaker.succeeded()
    assert breaker.state is State.CLOSED


@given(st.lists(st.sampled_from(["ok", "fail", "ask", "wait"]), max_size=60))
def test_an_open_breaker_never_admits_before_its_time(steps: list[str]) -> None:
    breaker, now = Breaker(), 0.0
    for step in steps:
        if step == "ok":
            breaker.succeeded()
        elif step == "fail":
            breaker.failed(now)
        elif step == "wait":
            now += 2.0
        elif breaker.state is State.OPEN:
            assert breaker.admits(now) == (now >= breaker.retry_at)
