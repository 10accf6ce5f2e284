"""Export of ended spans by OTLP with OpenTelemetry's SDK, in batches, outside of the call path."""

from collections.abc import Sequence
from threading import Thread
from typing import Any, cast

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace import sampling as sdk_sampling
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from toolbus_common import VERSION
from toolbus_common.observability.metrics import SPANS
from toolbus_common.observability.otlp_env import reading_variables
from toolbus_common.observability.otlp_resource import resource_of
from toolbus_common.observability.otlp_session import session
from toolbus_common.observability.trace_context import Sampler, span_id, trace_id
from toolbus_common.observability.tracing.context import Span

LAST_SECONDS = 3.0  # for the last spans of a process that ends
SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_EXPORTED, _DROPPED, _FAILED = (
    SPANS.labels(outcome) for outcome in ("exported", "dropped", "failed")
)


class _Ended:
    """An ended span in the queue of the batch processor, which reads its `context`."""

    __slots__ = ("span",)
    context = SpanContext(1, 1, is_remote=False, trace_flags=SAMPLED)

    def __init__(self, span: Span) -> None:
        self.span = span


class _Converting(SpanExporter):
    """Exporter that converts queued spans to the form of the SDK and counts the results.

    It runs in the thread of the batch processor.
    """

    def __init__(self) -> None:
        self._session = session()
        self._exporter = OTLPSpanExporter(session=self._session)
        self.taken = 0  # spans that left the queue

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        """Send a batch of `_Ended`, and return the result."""
        self.taken += len(spans)
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export([readable(each.span) for each in spans])
        finally:
            (_EXPORTED if result is SpanExportResult.SUCCESS else _FAILED).inc(len(spans))
        return result

    def shutdown(self) -> None:
        """Abort the retries of the current batch."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]
        self._session.close()


class _Processor(BatchSpanProcessor):
    """A batch processor that exposes the size of its queue as `max_waiting`."""

    def __init__(self, exporter: SpanExporter) -> None:
        self.max_waiting: int = self._default_max_queue_size()  # type: ignore[no-untyped-call]
        super().__init__(exporter, self.max_waiting)


class Exporter:
    """Queues ended spans, up to `OTEL_BSP_MAX_QUEUE_SIZE`. Then the oldest span is dropped.

    Dropped spans are counted.

    Raises:
        OtlpError: a variable has an invalid value.

    """

    def __init__(self) -> None:
        with reading_variables():
            self._converting = _Converting()
            self._processor = _Processor(self._converting)
        self._waited = 0  # spans that entered the queue and were not dropped

    def take(self, span: Span) -> None:
        """Add an ended span to the queue."""
        if self._waited - self._converting.taken >= self._processor.max_waiting:
            _DROPPED.inc()
        else:
            self._waited += 1
        self._processor.on_end(cast("ReadableSpan", _Ended(span)))

    def close(self) -> None:
        """Send the remaining spans. This takes at most `LAST_SECONDS`."""
        thread = Thread(target=self._processor.shutdown, name="toolbus-traces", daemon=True)
        thread.start()
        thread.join(LAST_SECONDS)
        if thread.is_alive():
            self._converting.shutdown()


def configured_sampler() -> Sampler:
    """Return the sampler that `OTEL_TRACES_SAMPLER` selects.

    Raises:
        OtlpError: a variable has an invalid value.

    """
    with reading_variables():
        return _decision_of(TracerProvider(shutdown_on_exit=False).sampler)


def _decision_of(sampler: sdk_sampling.Sampler) -> Sampler:
    parents = {
        sampled: set_span_in_context(
            NonRecordingSpan(SpanContext(1, 1, is_remote=True, trace_flags=TraceFlags(sampled)))
        )
        for sampled in (True, False)
    }

    def sampled(trace: str, parent_sampled: bool | None) -> bool:  # noqa: FBT001 - one flag
        parent = None if parent_sampled is None else parents[parent_sampled]
        decision = sampler.should_sample(parent, int(trace, 16), "").decision
        return decision is sdk_sampling.Decision.RECORD_AND_SAMPLE

    return sampled


def readable(span: Span) -> ReadableSpan:
    """Return a span in the form that the exporter of the SDK reads."""
    own = _context(span.traceparent)
    parent = None
    if span.parent_id:
        parent = SpanContext(
            own.trace_id, int(span.parent_id, 16), is_remote=True, trace_flags=SAMPLED
        )
    return ReadableSpan(
        name=span.name,
        context=own,
        parent=parent,
        resource=resource_of(span.service),
        attributes=span.attributes,
        links=[Link(_context(each)) for each in span.links],
        kind=SpanKind(span.kind - 1),  # OTLP's numbers start at 1
        status=Status(StatusCode.ERROR) if span.error else Status(StatusCode.UNSET),
        start_time=span.began,
        end_time=span.ended,
        instrumentation_scope=InstrumentationScope(f"toolbus.{span.service}", VERSION),
    )


def _context(traceparent: str) -> SpanContext:
    return SpanContext(
        int(trace_id(traceparent), 16),
        int(span_id(traceparent), 16),
        is_remote=False,
        trace_flags=SAMPLED,
    )
