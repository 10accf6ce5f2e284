"""Spans of admitted calls, in the service that executes them."""

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, TypeVar

from toolbus_common.contracts import CallAdmitted, CallError, CallResult
from toolbus_common.contracts.replies import ReplyChannel, ReplyMessage
from toolbus_common.observability.tracing.call_result import says_it_failed
from toolbus_common.observability.tracing.context import Span
from toolbus_common.observability.tracing.spans import Tracer

S = TypeVar("S")
Handler = Callable[[S, CallAdmitted, ReplyChannel], Coroutine[Any, Any, None]]


class TracedReply:
    """A reply channel that records the outcome of the call in a span."""

    def __init__(self, reply: ReplyChannel, span: Span) -> None:
        self._reply = reply
        self._span = span
        self.address = reply.address

    async def send(self, message: ReplyMessage) -> None:
        """Send a message. If it reports a failure, mark the span as failed."""
        if isinstance(message, CallError):
            self._span.fail(message.error.code)
        elif isinstance(message, CallResult) and says_it_failed(message.body):
            self._span.fail("tool_error")
        await self._reply.send(message)


def executing(tracer: Tracer) -> Callable[[Handler[S]], Handler[S]]:
    """Return a decorator that records a span around the method that executes admitted calls."""

    def traced(handler: Handler[S]) -> Handler[S]:
        @wraps(handler)
        def handle(
            service: S, call: CallAdmitted, reply: ReplyChannel
        ) -> Coroutine[Any, Any, None]:
            span = tracer.span("toolbus.execute", call.traceparent)
            if not isinstance(span, Span):
                return handler(service, call, reply)
            span.note("toolbus.server", call.server)
            span.note("toolbus.call.id", call.call_id)
            return span.around(handler(service, call, TracedReply(reply, span)))

        return handle

    return traced
