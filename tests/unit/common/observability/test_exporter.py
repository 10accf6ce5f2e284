"""The trace exporter: valid protobuf, in batches, off the call path."""

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1 import trace_pb2

from harness.receivers.otlp_collector import Collector, plain
from harness.waits import PATIENCE, until_blocking
from toolbus_common.observability.metrics import SPANS
from toolbus_common.observability.trace_context import child_of, span_id, trace_id
from toolbus_common.observability.tracing import CLIENT, Span
from toolbus_common.observability.tracing.exporter import Exporter
from toolbus_common.observability.tracing.otel_env import Exporting, exporting
from toolbus_common.observability.tracing.otlp_encoding import encoded

THEIRS = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = TEXT | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)


class Nowhere:
    def take(self, span: Span) -> None:
        """Whoever made it has it."""


def span(name: str = "toolbus.decide", **attributes: Any) -> Span:
    made = Span(Nowhere(), "policy", name, CLIENT, THEIRS)
    for key, value in attributes.items():
        made.note(key, value)
    made.end()
    return made


def options_for(collector: Collector, **more: str) -> Exporting:
    options = exporting({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **more})
    assert options is not None
    return options


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """One that whoever ends waits for, however busy the machine is."""
    monkeypatch.setattr("toolbus_common.observability.tracing.exporter.LAST_SECONDS", PATIENCE)
    with Collector() as made:
        yield made


def counted(outcome: str) -> float:
    return float(SPANS.labels(outcome)._value.get())


@given(name=TEXT, attributes=st.dictionaries(TEXT, VALUES, max_size=4), error=st.booleans())
def test_a_span_is_read_back_as_it_was(
    name: str,
    attributes: dict[str, Any],
    error: bool,  # noqa: FBT001
) -> None:
    made = span(name, **{key: value for key, value in attributes.items() if value != ""})
    made.links = [child_of(THEIRS)]
    if error:
        made.fail("upstream_dead")
    decoded = trace_pb2.Span.FromString(encoded(made))
    assert decoded.trace_id.hex() == trace_id(THEIRS)
    assert decoded.span_id.hex() == span_id(made.traceparent)
    assert decoded.parent_span_id.hex() == span_id(THEIRS)
    assert (decoded.name, decoded.kind, decoded.flags) == (name, CLIENT, 1)
    assert (decoded.start_time_unix_nano, decoded.end_time_unix_nano) == (made.began, made.ended)
    assert plain(decoded.attributes) == made.attributes
    assert [type(value) for value in plain(decoded.attributes).values()] == [
        type(value) for value in made.attributes.values()
    ]
    assert decoded.links[0].span_id.hex() == span_id(made.links[0])
    assert decoded.links[0].flags == 1
    assert decoded.status.code == (2 if error else 0)
    assert not decoded.status.message
    assert len(UnknownFieldSet(decoded)) == 0


def test_equal_values_of_two_types_stay_apart() -> None:
    decoded = trace_pb2.Span.FromString(encoded(span(a=True, b=1, c=1.0)))
    assert [each.value.WhichOneof("value") for each in decoded.attributes] == [
        "bool_value", "int_value", "double_value",
    ]  # fmt: skip


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_spans_are_sent_in_one_request_for_all_services(
    collector: Collector, compression: str
) -> None:
    options = options_for(
        collector,
        OTEL_EXPORTER_OTLP_HEADERS="x-key=s3cret",
        OTEL_EXPORTER_OTLP_COMPRESSION=compression,
        OTEL_BSP_SCHEDULE_DELAY="3600000",
    )
    exporter = Exporter(options)
    exporter.start()
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


def test_a_full_batch_is_sent_before_its_time(collector: Collector) -> None:
    options = options_for(
        collector, OTEL_BSP_SCHEDULE_DELAY="3600000", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="3"
    )
    exporter = Exporter(options)
    exporter.start()
    try:
        for _ in range(3):
            exporter.take(span())
        until_blocking(lambda: len(collector.spans) == 3, "the batch")
    finally:
        exporter.close()


def test_spans_beyond_the_queue_are_dropped_and_counted(collector: Collector) -> None:
    options = options_for(collector, OTEL_BSP_MAX_QUEUE_SIZE="2", OTEL_BSP_SCHEDULE_DELAY="3600000")
    exporter, before = Exporter(options), counted("dropped")
    for _ in range(5):
        exporter.take(span())
    assert counted("dropped") - before == 3
    exporter.start()
    exporter.close()
    assert len(collector.spans) == 2


def test_a_collector_that_is_busy_is_asked_again_and_one_that_refuses_is_not(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolbus_common.observability.tracing.exporter.FIRST_PAUSE", 0.001)
    collector.statuses = [503, 429, 200, 400]
    exporter = Exporter(options_for(collector, OTEL_BSP_MAX_EXPORT_BATCH_SIZE="1"))
    exported, failed = counted("exported"), counted("failed")
    exporter.start()
    try:
        exporter.take(span("first"))
        until_blocking(lambda: counted("exported") - exported == 1, "the first is sent")
        exporter.take(span("second"))
        until_blocking(lambda: counted("failed") - failed == 1, "the second is given up")
    finally:
        exporter.close()
    assert [each.name for each in collector.spans] == ["first"]
    assert len(collector.headers) == 4


def test_no_collector_keeps_nothing_from_ending() -> None:
    options = exporting({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"})
    assert options is not None
    exporter, failed = Exporter(options), counted("failed")
    exporter.start()
    exporter.take(span())
    exporter.close()
    assert counted("failed") - failed == 1
    assert not exporter._thread.is_alive()
