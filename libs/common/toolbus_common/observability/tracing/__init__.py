"""OpenTelemetry traces: spans of sampled calls, exported off the call path."""

from toolbus_common.observability.tracing.context import (
    NOTHING,
    Nothing,
    Span,
    bind,
    bound,
    current,
)
from toolbus_common.observability.tracing.spans import (
    CLIENT,
    INTERNAL,
    SERVER,
    Tracer,
    enter,
    recording,
)

__all__ = [
    "CLIENT", "INTERNAL", "NOTHING", "SERVER", "Nothing", "Span", "Tracer", "bind", "bound",
    "current", "enter", "recording",
]  # fmt: skip
