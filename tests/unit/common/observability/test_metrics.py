"""Counts and durations of the call path reach their metrics when the metrics are read."""

from concurrent.futures import ThreadPoolExecutor

from prometheus_client import REGISTRY

from toolbus_common.observability.call_metrics import call_count
from toolbus_common.observability.metrics import (
    CALL_SECONDS,
    CALLS,
    UPSTREAM_SECONDS,
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


def test_durations_are_exposed_in_cumulative_buckets() -> None:
    before = [_bucket(bound) for bound in ("0.001", "0.0025", "60.0", "+Inf")]
    for seconds in (0.001, 0.002, 60.0, 61.0):
        CALL_SECONDS.labels("").observe(seconds)
    after = [_bucket(bound) for bound in ("0.001", "0.0025", "60.0", "+Inf")]
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 2, 3, 4]
    assert _durations() == after[-1]


def test_durations_of_servers_are_separate() -> None:
    for server in ("one", "other", "one"):
        UPSTREAM_SECONDS.labels(server).observe(0.5)
    exposed = exposition().decode()
    assert 'toolbus_upstream_seconds_count{server="one"} 2.0' in exposed
    assert 'toolbus_upstream_seconds_sum{server="other"} 0.5' in exposed


def test_readers_in_several_threads_report_each_call_once() -> None:
    calls = call_count(CALLS.labels("threads"))
    with ThreadPoolExecutor(4) as readers:
        for _ in range(200):
            calls.count += 1
            readers.submit(exposition)
    assert _calls("threads") == 200


def _calls(outcome: str) -> float:
    return REGISTRY.get_sample_value("toolbus_calls_total", {"outcome": outcome}) or 0.0


def _durations() -> float:
    return REGISTRY.get_sample_value("toolbus_call_seconds_count") or 0.0


def _bucket(bound: str) -> float:
    return REGISTRY.get_sample_value("toolbus_call_seconds_bucket", {"le": bound}) or 0.0
