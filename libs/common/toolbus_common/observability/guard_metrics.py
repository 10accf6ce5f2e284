"""Metrics of the checks of guards, counted where a check is made."""

from functools import cache
from typing import NamedTuple

from toolbus_common.contracts.events.guards import GuardCheck
from toolbus_common.observability.call_metrics import CallCount, DurationHistogram, call_count
from toolbus_common.observability.metrics import GUARD_CHECKS, GUARD_FAILURES, GUARD_SECONDS


class _Metrics(NamedTuple):
    checks: CallCount
    seconds: DurationHistogram


def record_check(check: GuardCheck, *, fails_closed: bool) -> None:
    """Count one check and its duration; `fails_closed` is the setting of its guard.

    A check whose verdict comes from a cache is counted, but its duration is not.
    """
    metrics = _metrics(check.guard, check.phase, check.verdict)
    metrics.checks.count += 1
    if not check.cached:
        metrics.seconds.observe(check.us / 1e6)
    if check.verdict == "failed":
        outcome = "closed" if fails_closed else "open"
        GUARD_FAILURES.labels(check.guard, check.phase, outcome).inc()


@cache
def _metrics(guard: str, phase: str, verdict: str) -> _Metrics:
    """Return the metrics of these labels, whose values are few configured names."""
    counted = call_count(GUARD_CHECKS.labels(guard, phase, verdict))
    return _Metrics(counted, GUARD_SECONDS.labels(guard))
