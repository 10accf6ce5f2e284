"""The trace exporter: spans by OTLP, in batches, off the call path."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1 import trace_pb2

from harness.receivers.otlp_collector import Collector, plain
from harness.waits import PATIENCE, until_blocking
from toolbus_common.observability.metrics import SPANS
from toolbus_common.observability.otlp_env import OtlpError
from toolbus_common.observability.otlp_resource import resource_of
from toolbus_common.observability.trace_context import child_of, span_id, trace_id
from toolbus_common.observability.tracing import CLIENT, Span
from toolbus_common.observability.tracing.exporter import Exporter, readable

THEIRS = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NAMES = TEXT.filter(bool)
VALUES = TEXT | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)


class Nowhere:
    def take(self, span: Span) -> None:
        """Discard the span."""


def span(name: str = "toolbus.decide", **attributes: Any) -> Span:
    made = Span(Nowhere(), "policy", name, CLIENT, THEIRS)
    for key, value in attributes.items():
        made.note(key, value)
    made.end()
    return made


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Serve a collector that exporters wait for, however busy the machine is."""
    monkeypatch.setattr("toolbus_common.observability.tracing.exporter.LAST_SECONDS", PATIENCE)
    resource_of.cache_clear()
    with Collector() as made:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.url)
        yield made
    resource_of.cache_clear()


def counted(outcome: str) -> float:
    return float(SPANS.labels(outcome)._value.get())


def sent(made: Span) -> trace_pb2.Span:
    """Return a span as the collector reads it."""
    request: Any = encode_spans([readable(made)])
    decoded: trace_pb2.Span = request.resource_spans[0].scope_spans[0].spans[0]
    return decoded


@given(name=NAMES, attributes=st.dictionaries(NAMES, VALUES, max_size=4), error=st.booleans())
def test_a_span_arrives_with_all_its_fields(
    name: str,
    attributes: dict[str, Any],
    error: bool,  # noqa: FBT001
) -> None:
    made = span(name, **{key: value for key, value in attributes.items() if value != ""})
    made.links = [child_of(THEIRS)]
    if error:
        made.fail("upstream_dead")
    decoded = sent(made)
    assert decoded.trace_id.hex() == trace_id(THEIRS)
    assert decoded.span_id.hex() == span_id(made.traceparent)
    assert decoded.parent_span_id.hex() == span_id(THEIRS)
    assert (decoded.name, decoded.kind) == (name, CLIENT)
    assert (decoded.start_time_unix_nano, decoded.end_time_unix_nano) == (made.began, made.ended)
    assert plain(decoded.attributes) == made.attributes
    assert decoded.links[0].span_id.hex() == span_id(made.links[0])
    assert decoded.status.code == (2 if error else 0)
    assert not decoded.status.message


def test_equal_values_of_two_types_stay_apart() -> None:
    decoded = sent(span(a=True, b=1, c=1.0))
    assert [each.value.WhichOneof("value") for each in decoded.attributes] == [
        "bool_value", "int_value", "double_value",
    ]  # fmt: skip


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_spans_are_sent_in_one_request_for_all_services(
    collector: Collector, compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=s3cret")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    exporter = Exporter()
    mine, theirs = span("toolbus.decide"), Span(Nowhere(), "executor", "x", CLIENT, THEIRS)
    theirs.end()
    exporter.take(mine)
    exporter.take(theirs)
    exporter.close()
    assert len(collector.bodies) == 1
    assert {(each.scope, each.service) for each in collector.spans} == {
        ("policy", "toolbus-policy"), ("executor", "toolbus-executor"),
    }  # fmt: skip
    assert collector.headers[0]["content-type"] == "application/x-protobuf"
    assert collector.headers[0]["x-key"] == "s3cret"


def test_the_environment_names_services_and_adds_attributes(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod")
    assert resource_of("policy").attributes["service.name"] == "toolbus-policy"
    assert resource_of("policy").attributes["deployment.environment.name"] == "prod"
    resource_of.cache_clear()
    monkeypatch.setenv("OTEL_SERVICE_NAME", "gateway")
    exporter = Exporter()
    exporter.take(span())
    exporter.close()
    assert [each.service for each in collector.spans] == ["gateway"]


def test_a_full_batch_is_sent_before_its_time(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "3")
    exporter = Exporter()
    try:
        for _ in range(3):
            exporter.take(span())
        until_blocking(lambda: len(collector.spans) == 3, "the batch")
    finally:
        exporter.close()


def test_spans_beyond_the_queue_are_dropped_and_counted(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "2")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
    monkeypatch.setattr("opentelemetry.sdk._shared_internal.BatchProcessor.worker", lambda _: None)
    exporter, before = Exporter(), counted("dropped")
    for number in range(5):
        exporter.take(span(str(number)))
    assert counted("dropped") - before == 3
    exporter.close()
    assert collector.spans == []  # the sending thread never ran


def test_a_busy_collector_is_retried_and_one_that_rejects_is_not(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
    collector.statuses = [503, 200, 400]
    exporter = Exporter()
    exported, failed = counted("exported"), counted("failed")
    try:
        exporter.take(span("first"))
        until_blocking(lambda: counted("exported") - exported == 1, "the first is sent")
        exporter.take(span("second"))
        until_blocking(lambda: counted("failed") - failed == 1, "the second is dropped")
    finally:
        exporter.close()
    assert [each.name for each in collector.spans] == ["first"]
    assert len(collector.headers) == 3


def test_a_missing_collector_does_not_keep_a_process_from_ending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("toolbus_common.observability.tracing.exporter.LAST_SECONDS", 0.05)
    exporter, failed = Exporter(), counted("failed")
    exporter.take(span())
    exporter.close()
    until_blocking(lambda: counted("failed") - failed == 1, "the batch is given up")


def test_an_invalid_number_is_rejected_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "-1")
    with pytest.raises(OtlpError, match="OTEL_"):
        Exporter()


def test_a_redirect_is_a_failure(collector: Collector) -> None:
    collector.statuses = [301]
    collector.location = f"{collector.url}/elsewhere"
    exporter, failed, exported = Exporter(), counted("failed"), counted("exported")
    exporter.take(span())
    exporter.close()
    assert (counted("failed") - failed, counted("exported") - exported) == (1, 0)
