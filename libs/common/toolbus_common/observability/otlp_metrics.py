"""Export of the Prometheus metrics of this process by OTLP, at the interval of the SDK."""

import logging
from collections.abc import Iterable, Sequence
from time import time_ns
from typing import Any

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricReader,
    MetricsData,
    NumberDataPoint,
    PeriodicExportingMetricReader,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import Metric as Family

from toolbus_common import VERSION
from toolbus_common.observability.otlp_env import reading_variables
from toolbus_common.observability.otlp_resource import resource_of
from toolbus_common.observability.otlp_session import session

log = logging.getLogger(__name__)

CUMULATIVE = AggregationTemporality.CUMULATIVE


class MetricExporter(PeriodicExportingMetricReader):
    """Sends the metrics of a registry every `OTEL_METRIC_EXPORT_INTERVAL` and at shutdown.

    Raises:
        OtlpError: a variable has an invalid value.

    """

    def __init__(self, services: Sequence[str], registry: CollectorRegistry = REGISTRY) -> None:
        self._registry = registry
        self._since = time_ns()
        with reading_variables():
            self._resource = resource_of("+".join(services))
            self._session = session()
            super().__init__(OTLPMetricExporter(session=self._session))
        # A `MeterProvider` does the same. If the callback returns None, the reader sends nothing.
        self._set_collect_callback(self._present)  # type: ignore[arg-type]

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Send the last values and stop the exporter."""
        super().shutdown(timeout_millis, **kwargs)
        self._session.close()

    def _present(
        self,
        _reader: MetricReader,
        timeout_millis: float,  # noqa: ARG002 - part of the callback
    ) -> MetricsData | None:
        now = time_ns()
        try:
            metrics = list(_metrics(self._registry.collect(), self._since, now))
        except Exception:  # would end the SDK's thread
            log.exception("metrics.not_collected")
            return None
        scope = ScopeMetrics(InstrumentationScope("toolbus", VERSION), metrics, "")
        return MetricsData([ResourceMetrics(self._resource, [scope], "")])


def _metrics(families: Iterable[Family], since: int, now: int) -> Iterable[Metric]:
    for family in families:
        data: Sum | Gauge | Histogram
        if family.type == "histogram":
            data = Histogram(_histogram_points(family, since, now), CUMULATIVE)
        else:
            points = [
                NumberDataPoint(sample.labels, since, now, sample.value)
                for sample in family.samples
                if not sample.name.endswith("_created")
            ]
            if family.type == "counter":
                data = Sum(points, CUMULATIVE, is_monotonic=True)
            else:
                data = Gauge(points)
        if data.data_points:
            yield Metric(_name(family), family.documentation, "", data)


def _name(family: Family) -> str:
    """Return the name in Prometheus, where the names of counters end in `_total`."""
    return f"{family.name}_total" if family.type == "counter" else family.name


def _histogram_points(family: Family, since: int, now: int) -> list[HistogramDataPoint]:
    by_labels: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
    for sample in family.samples:
        labels = {name: value for name, value in sample.labels.items() if name != "le"}
        point = by_labels.setdefault(
            tuple(labels.items()), {"labels": labels, "bounds": [], "counts": [], "sum": 0.0}
        )
        if sample.name.endswith("_bucket"):
            point["bounds"].append(float(sample.labels["le"]))
            point["counts"].append(int(sample.value))
        elif sample.name.endswith("_sum"):
            point["sum"] = sample.value
    return [_histogram_point(point, since, now) for point in by_labels.values()]


def _histogram_point(point: dict[str, Any], since: int, now: int) -> HistogramDataPoint:
    cumulative = point["counts"]
    counts = [last - before for before, last in zip([0, *cumulative], cumulative, strict=False)]
    return HistogramDataPoint(
        attributes=point["labels"],
        start_time_unix_nano=since,
        time_unix_nano=now,
        count=cumulative[-1],
        sum=point["sum"],
        bucket_counts=counts,
        explicit_bounds=point["bounds"][:-1],  # the last bound is infinite
        min=None,  # type: ignore[arg-type] # unknown; OTLP permits this
        max=None,  # type: ignore[arg-type]
    )
