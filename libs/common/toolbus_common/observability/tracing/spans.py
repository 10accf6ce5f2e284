"""How a service begins spans: in traces that are recorded, where this process records any."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Final

from toolbus_common.observability.trace_context import (
    Sampler,
    as_asked,
    continued,
    entered,
    is_sampled,
    is_traceparent,
)
from toolbus_common.observability.tracing.context import (
    MOST_LINKS,
    NOTHING,
    Nothing,
    Sink,
    Span,
    current,
)

INTERNAL: Final = 1  # as OTLP numbers them
SERVER: Final = 2
CLIENT: Final = 3


class Recording:
    """Where this process' spans go, and which traces it begins; nowhere until it is told."""

    def __init__(self) -> None:
        self.sink: Sink | None = None
        self.sampler: Sampler = as_asked

    @contextmanager
    def to(self, sink: Sink, sampler: Sampler) -> Iterator[None]:
        """Record until left."""
        self.sink, self.sampler = sink, sampler
        try:
            yield
        finally:
            self.sink, self.sampler = None, as_asked


recording = Recording()  # one for a process, as there is one set of metrics


class Tracer:
    """Begins the spans of one service."""

    __slots__ = ("_service",)

    def __init__(self, service: str) -> None:
        self._service = service

    def entrance(self, traceparent: str, parent_id: str, name: str) -> Span | Nothing:
        """The span of a request from outside, which has its traceparent already."""
        sink = recording.sink
        if sink is None or not is_sampled(traceparent):
            return NOTHING
        span = Span(sink, self._service, name, SERVER, traceparent)
        span.traceparent, span.parent_id = traceparent, parent_id
        return span

    def span(self, name: str, parent: str, kind: int = INTERNAL) -> Span | Nothing:
        """A span below one that another service may have begun."""
        sink = recording.sink
        if sink is None or not is_sampled(parent):
            return NOTHING
        return Span(sink, self._service, name, kind, parent)

    def below(self, name: str, kind: int = INTERNAL) -> Span | Nothing:
        """A span below the one under way in this task, if there is one."""
        if recording.sink is None:
            return NOTHING
        above = current()
        return self.span(name, above.traceparent, kind) if above.recorded else NOTHING

    def linked(self, name: str, told: Iterable[str]) -> Span | Nothing:
        """A trace of its own for work done for many together: each tells traceparents, or none."""
        sink = recording.sink
        if sink is None:
            return NOTHING
        spans = (span for each in told if each for span in each.split(",") if is_traceparent(span))
        links = list(dict.fromkeys(islice(spans, MOST_LINKS)))
        if not links:
            return NOTHING
        span = Span(sink, self._service, name, INTERNAL, continued(""))
        span.parent_id = ""
        span.links = links
        return span


def enter(parent: str) -> tuple[str, str]:
    """A traceparent for a request from outside, and the id of the span above it."""
    return entered(parent, recording.sampler)
