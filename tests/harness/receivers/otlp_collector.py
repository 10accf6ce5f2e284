"""OTLP receiver over HTTP that parses requests in the same way as a collector."""

import gzip
from collections import Counter, deque
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from harness.network.json_server import Request, Response, answering
from harness.waits import until_blocking


@dataclass(frozen=True)
class Received:
    """A span with its resource and scope."""

    scope: str
    service: str
    name: str
    kind: int
    trace: str
    id: str
    parent: str
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]
    failed: bool
    seconds: float


@dataclass(frozen=True)
class Value:
    """A value of a counter or gauge."""

    name: str
    labels: dict[str, Any]
    value: float


class Collector:
    """A collector that runs until the context ends.

    `statuses` are the statuses of its next responses. All further responses have the status 200.
    """

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []  # bodies of requests with traces
        self.metric_bodies: deque[bytes] = deque(maxlen=100)
        self.statuses: list[int] = []
        self.location = ""  # target of redirects
        self._port = 0

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def spans(self) -> list[Received]:
        """All accepted spans."""
        return [span for body in list(self.bodies) for span in read(body)]

    @property
    def metrics(self) -> list[Value]:
        """All accepted values of counters and gauges."""
        return [value for body in list(self.metric_bodies) for value in values(body)]

    def of(self, trace: str, *names: str) -> list[Received]:
        """Wait until each name occurs in the trace as often as in the arguments.

        Return the spans.
        """

        def there() -> list[Received]:
            found = [span for span in self.spans if span.trace == trace]
            return found if Counter(span.name for span in found) >= Counter(names) else []

        found: list[Received] = until_blocking(there, f"the spans {names}")
        return found

    def __enter__(self) -> Self:
        self._served = ExitStack()
        self._port = self._served.enter_context(answering(self._answer))
        return self

    def __exit__(self, *_: object) -> None:
        self._served.close()

    def _answer(self, request: Request) -> Response:
        status = self.statuses.pop(0) if self.statuses else 200
        self.headers.append(request.headers)
        if status == 200:
            zipped = request.headers.get("content-encoding") == "gzip"
            body = gzip.decompress(request.body) if zipped else request.body
            (self.metric_bodies if "/metrics" in request.path else self.bodies).append(body)
        return Response(status, headers={"Location": self.location} if self.location else {})


def read(body: bytes) -> list[Received]:
    """Return the spans in a request's body."""
    request = ExportTraceServiceRequest.FromString(body)
    return [
        _received(scoped.scope.name, plain(of_service.resource.attributes)["service.name"], span)
        for of_service in request.resource_spans
        for scoped in of_service.scope_spans
        for span in scoped.spans
    ]


def values(body: bytes) -> list[Value]:
    """Return the values of counters and gauges in a request's body."""
    request = ExportMetricsServiceRequest.FromString(body)
    return [
        Value(metric.name, plain(point.attributes), point.as_double)
        for of_service in request.resource_metrics
        for scoped in of_service.scope_metrics
        for metric in scoped.metrics
        for point in (*metric.sum.data_points, *metric.gauge.data_points)
    ]


def plain(attributes: Iterable[Any]) -> dict[str, Any]:
    """Return attributes as Python values."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


def _received(scope: str, service: str, span: Any) -> Received:
    return Received(
        scope=scope.removeprefix("toolbus."),
        service=service,
        name=span.name,
        kind=span.kind,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        attributes=plain(span.attributes),
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        failed=span.status.code == 2,
        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
    )
