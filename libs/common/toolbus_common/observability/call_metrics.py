"""Metrics of the call path, which cost fewer Python calls than those of the library."""

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate
from threading import Lock
from typing import Final

from prometheus_client import REGISTRY
from prometheus_client.metrics import Counter  # only increased here
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BOUNDS = (*map(floatToGoString, SECONDS), "+Inf")


class CallCount:
    """A count of the call path: `count += 1` costs no Python call, unlike a metric's `inc`.

    The metric receives the count when the metrics are read. Only the event loop increases it.
    """

    __slots__ = ("_metric", "_reported", "count")

    def __init__(self, metric: Counter) -> None:
        self._metric = metric
        self._reported = self.count = 0

    def report(self) -> None:
        """Add the calls since the last report to the metric."""
        count = self.count
        self._metric.inc(count - self._reported)
        self._reported = count


class DurationHistogram:
    """Durations by bucket. Observing one is one Python call; a library's histogram needs five."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.total += seconds


class CallDurations(Collector):
    """A histogram metric of the call path, with at most one label."""

    def __init__(self, name: str, description: str, label: str = "") -> None:
        self._name, self._description, self._type = name, description, "histogram"
        self._labelnames = (label,) if label else ()
        self._histograms: dict[str, DurationHistogram] = {}
        if not label:
            self.labels("")
        REGISTRY.register(self)

    def labels(self, value: str) -> DurationHistogram:
        """Return the histogram of a value of the label; the same object in each call."""
        return self._histograms.setdefault(value, DurationHistogram())

    def describe(self) -> Iterable[Family]:
        """Return the metric without values, by which the registry detects equal names."""
        return [HistogramMetricFamily(self._name, self._description)]

    def collect(self) -> Iterable[Family]:
        """Return the metric with cumulative buckets, as Prometheus requires."""
        family = HistogramMetricFamily(self._name, self._description, labels=self._labelnames)
        for value, each in list(self._histograms.items()):
            buckets = zip(_BOUNDS, map(float, accumulate(each.counts)), strict=True)
            family.add_metric([value] if self._labelnames else [], list(buckets), each.total)
        return [family]


class _Reporter(Collector):
    """The registry's first collector: it reports deferred values and has no metric itself."""

    def __init__(self) -> None:
        self.counts: dict[Counter, CallCount] = {}
        self._lock = Lock()  # the exporter of OTLP reads in another thread than Prometheus

    def collect(self) -> Iterable[Family]:
        """Report every deferred value to its metric."""
        with self._lock:
            for count in list(self.counts.values()):
                count.report()
        return ()


_reporter: Final = _Reporter()
REGISTRY.register(_reporter)


def call_count(metric: Counter) -> CallCount:
    """Return the counter of a metric; the same object in each call."""
    return _reporter.counts.setdefault(metric, CallCount(metric))
