"""Checks of guards are counted by guard, phase and verdict, and failures by their outcome."""

from prometheus_client import REGISTRY

from toolbus_common.contracts.events.guards import GuardCheck
from toolbus_common.observability.guard_metrics import record_check


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_a_check_is_counted_by_its_verdict_and_its_duration_by_its_guard() -> None:
    for us in (200, 900):
        record_check(
            GuardCheck(guard="g1", phase="results", verdict="redacted", us=us), fails_closed=True
        )
    labels = {"guard": "g1", "phase": "results", "verdict": "redacted"}
    assert value("toolbus_guard_checks_total", **labels) == 2
    assert value("toolbus_guard_seconds_count", guard="g1") == 2
    assert value("toolbus_guard_seconds_bucket", guard="g1", le="0.0005") == 1
    assert value("toolbus_guard_seconds_sum", guard="g1") == 0.0011


def test_a_failed_check_says_whether_the_call_was_rejected_or_passed() -> None:
    for closed in (True, False, False):
        record_check(
            GuardCheck(guard="g2", phase="arguments", verdict="failed"), fails_closed=closed
        )
    labels = {"guard": "g2", "phase": "arguments"}
    assert value("toolbus_guard_failures_total", **labels, outcome="closed") == 1
    assert value("toolbus_guard_failures_total", **labels, outcome="open") == 2
    assert value("toolbus_guard_checks_total", **labels, verdict="failed") == 3


def test_a_verdict_from_a_cache_is_counted_without_a_duration() -> None:
    record_check(
        GuardCheck(guard="g3", phase="results", verdict="passed", us=5, cached=True),
        fails_closed=False,
    )
    labels = {"guard": "g3", "phase": "results", "verdict": "passed"}
    assert value("toolbus_guard_checks_total", **labels) == 1
    assert value("toolbus_guard_seconds_count", guard="g3") == 0
