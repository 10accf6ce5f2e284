"""The spans of attempts to have a server answer; that of the whole call is `tracing.executing`."""

from collections.abc import Awaitable

from toolbus_common.contracts import TOOLS_CALL, CallAdmitted
from toolbus_common.observability.tracing import CLIENT, NOTHING, Nothing, Span, Tracer, current
from toolbus_common.observability.tracing.call_result import says_it_failed

ATTEMPTS = "toolbus.attempts"
TRACER = Tracer("executor")
_NAMED = {TOOLS_CALL: "gen_ai.tool.name", "prompts/get": "gen_ai.prompt.name"}


def attempting(call: CallAdmitted) -> Span | Nothing:
    """One attempt, by OpenTelemetry's conventions for MCP."""
    above = current()
    if not isinstance(above, Span):
        return NOTHING
    kind = _NAMED.get(call.method)
    number = int(above.attributes.get(ATTEMPTS, 0)) + 1
    above.note(ATTEMPTS, number)
    span = TRACER.below(f"{call.method} {call.tool}" if kind else call.method, CLIENT)
    span.note("mcp.method.name", call.method)
    span.note("toolbus.server", call.server)
    span.note("toolbus.attempt", number)
    if kind:
        span.note(kind, call.tool)
    if call.method == TOOLS_CALL:
        span.note("gen_ai.operation.name", "execute_tool")
    return span


def carried(call: CallAdmitted, attempt: Span) -> CallAdmitted:
    """The call as the server is to see it: below this attempt."""
    return call.model_copy(update={"traceparent": attempt.traceparent})


async def answered(attempt: Span, asked: Awaitable[bytes]) -> bytes:
    """What the server answers, which the attempt notes."""
    raw = await asked
    if says_it_failed(raw):
        attempt.fail("tool_error")
    return raw
