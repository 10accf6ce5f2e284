"""Trace spans of attempts. `tracing.executing` creates the span of the whole call."""

from collections.abc import Awaitable

from toolbus_common.contracts import TOOLS_CALL, CallAdmitted
from toolbus_common.observability.tracing import CLIENT, NOTHING, Nothing, Span, Tracer, current
from toolbus_common.observability.tracing.call_result import says_it_failed

ATTEMPTS = "toolbus.attempts"
TRACER = Tracer("executor")
_NAMED = {TOOLS_CALL: "gen_ai.tool.name", "prompts/get": "gen_ai.prompt.name"}


def start_attempt(call: CallAdmitted) -> Span | Nothing:
    """Start the span of one attempt, with the attributes of OpenTelemetry's MCP conventions.

    Return `NOTHING` if the call is not traced.
    """
    parent = current()
    if not isinstance(parent, Span):
        return NOTHING
    kind = _NAMED.get(call.method)
    number = int(parent.attributes.get(ATTEMPTS, 0)) + 1
    parent.note(ATTEMPTS, number)
    span = TRACER.below(f"{call.method} {call.tool}" if kind else call.method, CLIENT)
    span.note("mcp.method.name", call.method)
    span.note("toolbus.server", call.server)
    span.note("toolbus.attempt", number)
    if kind:
        span.note(kind, call.tool)
    if call.method == TOOLS_CALL:
        span.note("gen_ai.operation.name", "execute_tool")
    return span


def with_attempt(call: CallAdmitted, attempt: Span) -> CallAdmitted:
    """Return the call to send to the server.

    The attempt is the parent span of the server's spans.
    """
    return call.model_copy(update={"traceparent": attempt.traceparent})


async def record_result(attempt: Span, result: Awaitable[bytes]) -> bytes:
    """Return the server's result. If the tool reported an error, mark the attempt as failed."""
    raw = await result
    if says_it_failed(raw):
        attempt.fail("tool_error")
    return raw
