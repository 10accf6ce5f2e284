"""Cost of tracing per unrecorded call, recorded span and exported span (`make bench-traces`)."""

import argparse
import sys
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

from figures import keep, met, row, show
from toolbus_common.observability.trace_context import entered
from toolbus_common.observability.tracing import Span, Tracer, bind, recording
from toolbus_common.observability.tracing.exporter import readable

ROUNDS = 7  # rounds, of which the best counts, because interference only slows
SPANS_OF_A_CALL = 7
BATCH = 512
MAX_UNRECORDED_NS = 1000  # a span site without recording
MAX_CALL_NS = 10_000  # all sites of a call without recording
THEIRS = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-"
ATTRIBUTES = {
    "mcp.method.name": "tools/call", "gen_ai.operation.name": "execute_tool",
    "gen_ai.tool.name": "docs__search", "toolbus.server": "docs", "toolbus.call.id": "a1b2c3",
}  # fmt: skip


class Kept:
    """A span exporter that stores spans in a list."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def take(self, span: Span) -> None:
        """Store a span."""
        self.spans.append(span)


def main() -> int:
    """Run the benchmark; return 0 if the demands are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=100_000)
    times = parser.parse_args().times
    figures = _measured(times)
    rows = [
        row("a span without tracing, ns", figures["off_ns"], "<=", MAX_UNRECORDED_NS),
        row("a span of an unsampled trace, ns", figures["unsampled_ns"], "<=", MAX_UNRECORDED_NS),
        row("all spans of an unsampled call, ns", figures["call_ns"], "<=", MAX_CALL_NS),
    ]
    show(rows)
    print("\nns per span, started and ended with five attributes, and encoded:")
    for name in ("recorded_ns", "encoded_ns"):
        print(f"  {name:16} {figures[name]}")
    keep("traces", {"times": times, **figures, "rows": rows})
    return 0 if met(rows) else 1


def _measured(times: int) -> dict[str, Any]:
    sink = Kept()
    off = _each(_site("01"), times)
    with recording.to(sink, lambda _trace, _requested: True):
        unsampled = _each(_site("00"), times)
        call = _each(_unsampled_call, times // SPANS_OF_A_CALL)
        recorded = _each(_recorded, times // 10)
        batch = sink.spans[:BATCH]
        encoding = _each(lambda: _encoded(batch), times // 1000) / BATCH
    return {
        "off_ns": off, "unsampled_ns": unsampled, "call_ns": call, "recorded_ns": recorded,
        "encoded_ns": encoding,
    }  # fmt: skip


def _each(work: Callable[[], Any], times: int) -> float:
    """Return nanoseconds per execution, in the best of several rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = perf_counter_ns()
        for _ in range(times):
            work()
        best = min(best, (perf_counter_ns() - began) / times)
    return round(best, 1)


def _encoded(batch: list[Span]) -> bytes:
    """Encode a batch as the exporter's thread does."""
    encoded: bytes = encode_spans([readable(span) for span in batch]).SerializeToString()
    return encoded


def _site(flags: str) -> Callable[[], None]:
    tracer, parent = Tracer("policy"), THEIRS + flags

    def site() -> None:
        with tracer.span("toolbus.decide", parent):
            pass

    return site


def _unsampled_call() -> None:
    """Do what the services do for the trace of a call that is not sampled."""
    traceparent, above = entered(THEIRS + "00")
    bind(traceparent)
    with Tracer("ingress").entrance(traceparent, above, "tools/call"):
        for name in range(SPANS_OF_A_CALL - 1):
            with Tracer("executor").below(str(name)):
                pass


def _recorded() -> None:
    with Tracer("policy").span("toolbus.decide", THEIRS + "01") as span:
        for name, value in ATTRIBUTES.items():
            span.note(name, value)


if __name__ == "__main__":
    sys.exit(main())
