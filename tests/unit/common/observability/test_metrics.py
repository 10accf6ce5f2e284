"""Counts and durations of the call path reach their metrics when the metrics are read."""

from concurrent.futures import ThreadPoolExecutor

from prometheus_client import REGISTRY

from toolbus_common.observability.metrics import (
    CALL_SECONDS,
    CALLS,
    call_count,
    duration_buffer,
    exposition,
)


def test_counted_calls_are_reported_once_however_often_the_metrics_are_read() -> None:
    calls = call_count(CALLS.labels("counted"))
    before = _calls("counted")
    calls.count += 3
    assert [_calls("counted") for _ in range(3)] == [before + 3] * 3
    calls.count += 1
    assert b'toolbus_calls_total{outcome="counted"} 4.0' in exposition()


def test_a_metric_has_one_count_so_that_two_owners_do_not_report_twice() -> None:
    first, second = (call_count(CALLS.labels("shared")) for _ in range(2))
    first.count += 1
    second.count += 1
    assert _calls("shared") == 2


def test_durations_are_reported_even_if_the_metrics_are_never_read() -> None:
    durations, before = duration_buffer(CALL_SECONDS), _durations()
    for _ in range(10_000):
        durations.observe(0.001)
    assert len(durations._durations) < 5_000
    assert _durations() == before + 10_000


def test_readers_in_several_threads_report_each_call_once() -> None:
    calls, durations = call_count(CALLS.labels("threads")), duration_buffer(CALL_SECONDS)
    before = _durations()
    with ThreadPoolExecutor(4) as readers:
        for _ in range(200):
            calls.count += 1
            durations.observe(0.001)
            readers.submit(exposition)
    assert (_calls("threads"), _durations()) == (200, before + 200)


def _calls(outcome: str) -> float:
    return REGISTRY.get_sample_value("toolbus_calls_total", {"outcome": outcome}) or 0.0


def _durations() -> float:
    return REGISTRY.get_sample_value("toolbus_call_seconds_count") or 0.0
