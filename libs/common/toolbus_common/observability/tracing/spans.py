"""Creation of a service's spans in recorded traces."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Final

from toolbus_common.observability.trace_context import (
    Sampler,
    continued,
    entered,
    is_sampled,
    is_traceparent,
    parent_based,
)
from toolbus_common.observability.tracing.context import (
    MAX_LINKS,
    NOTHING,
    Nothing,
    Sink,
    Span,
    current,
)

INTERNAL: Final = 1  # kinds of spans with OTLP's numbers
SERVER: Final = 2
CLIENT: Final = 3


class Recording:
    """The sink and the sampler of this process. Without a sink, no span is recorded."""

    def __init__(self) -> None:
        self.sink: Sink | None = None
        self.sampler: Sampler = parent_based

    @contextmanager
    def to(self, sink: Sink, sampler: Sampler) -> Iterator[None]:
        """Record spans in `sink` until the context is left."""
        self.sink, self.sampler = sink, sampler
        try:
            yield
        finally:
            self.sink, self.sampler = None, parent_based


recording = Recording()  # one for the whole process, like the metrics


class Tracer:
    """Starts the spans of one service."""

    __slots__ = ("_service",)

    def __init__(self, service: str) -> None:
        self._service = service

    def entrance(self, traceparent: str, parent_id: str, name: str) -> Span | Nothing:
        """Return the span of an incoming request, whose traceparent already exists."""
        sink = recording.sink
        if sink is None or not is_sampled(traceparent):
            return NOTHING
        span = Span(sink, self._service, name, SERVER, traceparent)
        span.traceparent, span.parent_id = traceparent, parent_id
        return span

    def span(self, name: str, parent: str, kind: int = INTERNAL) -> Span | Nothing:
        """Return a new span below a parent span. Another service can have started the parent."""
        sink = recording.sink
        if sink is None or not is_sampled(parent):
            return NOTHING
        return Span(sink, self._service, name, kind, parent)

    def below(self, name: str, kind: int = INTERNAL) -> Span | Nothing:
        """Return a new span below the current span of this task; `NOTHING` if there is none."""
        if recording.sink is None:
            return NOTHING
        above = current()
        return self.span(name, above.traceparent, kind) if above.recorded else NOTHING

    def linked(self, name: str, traceparents: Iterable[str]) -> Span | Nothing:
        """Return a span in a new trace, for work that serves several other traces.

        The span is linked to these traces.
        """
        sink = recording.sink
        if sink is None:
            return NOTHING
        spans = (
            span
            for each in traceparents
            if each
            for span in each.split(",")
            if is_traceparent(span)
        )
        links = list(dict.fromkeys(islice(spans, MAX_LINKS)))
        if not links:
            return NOTHING
        span = Span(sink, self._service, name, INTERNAL, continued(""))
        span.parent_id = ""
        span.links = links
        return span


def enter(parent: str) -> tuple[str, str]:
    """Return the traceparent of an incoming request, and the id of its parent span."""
    return entered(parent, recording.sampler)
