"""Metrics by OTLP: the values that Prometheus scrapes, as a collector reads them."""

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from harness.receivers.otlp_collector import Collector, plain
from harness.waits import PATIENCE
from toolbus_common.observability.otlp_metrics import MetricExporter


def test_counters_gauges_and_histograms_arrive_with_their_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry = CollectorRegistry()
    Counter("calls", "Calls", ["outcome"], registry=registry).labels("ok").inc(3)
    Gauge("open", "Open", registry=registry).set(2.5)
    seconds = Histogram("seconds", "Seconds", buckets=(0.1, 1), registry=registry)
    for value in (0.05, 0.5, 5):
        seconds.observe(value)
    with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        exporter = MetricExporter(["policy"], registry)
        exporter.shutdown(PATIENCE * 1000)
        request = ExportMetricsServiceRequest.FromString(collector.metric_bodies[-1])
    (of_service,) = request.resource_metrics
    assert plain(of_service.resource.attributes)["service.name"] == "toolbus-policy"
    metrics = {each.name: each for each in of_service.scope_metrics[0].metrics}
    (calls,) = metrics["calls_total"].sum.data_points
    assert (plain(calls.attributes), calls.as_double) == ({"outcome": "ok"}, 3)
    assert metrics["calls_total"].sum.is_monotonic
    (opened,) = metrics["open"].gauge.data_points
    assert opened.as_double == 2.5
    (took,) = metrics["seconds"].histogram.data_points
    assert (took.count, took.sum) == (3, 5.55)
    assert (list(took.bucket_counts), list(took.explicit_bounds)) == ([1, 1, 1], [0.1, 1])
    assert not took.HasField("min")
