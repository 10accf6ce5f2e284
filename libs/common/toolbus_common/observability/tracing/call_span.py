"""The span of an admitted call where it is carried out, whoever does that."""

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


class NotingReply:
    """A call's way back that has its span note how the call ended."""

    def __init__(self, reply: ReplyChannel, span: Span) -> None:
        self._reply = reply
        self._span = span
        self.address = reply.address

    async def send(self, frame: ReplyMessage) -> None:
        """Say a frame."""
        if isinstance(frame, CallError):
            self._span.fail(frame.error.code)
        elif isinstance(frame, CallResult) and says_it_failed(frame.body):
            self._span.fail("tool_error")
        await self._reply.send(frame)


def executing(tracer: Tracer) -> Callable[[Handler[S]], Handler[S]]:
    """Decorate the method that carries out admitted calls."""

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
            return span.around(handler(service, call, NotingReply(reply, span)))

        return handle

    return traced
