"""Spans of admitted calls, in the service that executes them."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import TypeVar

from toolbus_common.contracts import CallAdmitted, CallError, CallResult
from toolbus_common.contracts.replies import CallContext, Reply
from toolbus_common.observability.tracing.call_result import says_it_failed
from toolbus_common.observability.tracing.context import Span
from toolbus_common.observability.tracing.spans import Tracer, recording

S = TypeVar("S")
Handler = Callable[[S, CallAdmitted, CallContext], Awaitable[Reply | None]]


def executing(tracer: Tracer) -> Callable[[Handler[S]], Handler[S]]:
    """Return a decorator that records a span around the method that executes admitted calls."""

    def traced(handler: Handler[S]) -> Handler[S]:
        @wraps(handler)
        def handle(service: S, call: CallAdmitted, context: CallContext) -> Awaitable[Reply | None]:
            if recording.sink is None:
                return handler(service, call, context)
            span = tracer.span("toolbus.execute", call.traceparent)
            if not isinstance(span, Span):
                return handler(service, call, context)
            span.note("toolbus.server", call.server)
            span.note("toolbus.call.id", call.call_id)
            return span.around(_noted(span, handler(service, call, context)))

        return handle

    return traced


async def _noted(span: Span, work: Awaitable[Reply | None]) -> Reply | None:
    """Await a call, and record in its span how it ended."""
    reply = await work
    if isinstance(reply, CallError):
        span.fail(reply.error.code)
    elif isinstance(reply, CallResult) and says_it_failed(reply.body):
        span.fail("tool_error")
    return reply
