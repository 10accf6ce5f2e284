"""Trace spans of attempts. `tracing.executing` creates the span of the whole call."""

from collections.abc import Awaitable

from toolbus_common.contracts import TOOLS_CALL, CallAdmitted
from toolbus_common.contracts.model_calls import (
    CHAT,
    COUNT_TOKENS,
    EMBEDDINGS,
    MESSAGES,
    RESPONSES,
    ModelCall,
    Usage,
)
from toolbus_common.observability.tracing import CLIENT, NOTHING, Nothing, Span, Tracer, current
from toolbus_common.observability.tracing.call_result import says_it_failed

ATTEMPTS = "toolbus.attempts"
TRACER = Tracer("executor")
MODEL_OPERATIONS = {  # by method; `count_tokens` is not defined by the conventions
    CHAT: "chat",
    RESPONSES: "chat",
    MESSAGES: "chat",
    EMBEDDINGS: "embeddings",
    COUNT_TOKENS: "count_tokens",
}
Attributes = dict[str, str | int | float | bool | tuple[str, ...]]
# The names of providers in the conventions, where they differ from the kind.
_PROVIDERS = {"gemini": "gcp.gemini", "vertex": "gcp.vertex_ai", "bedrock": "aws.bedrock"}
_NAMED = {TOOLS_CALL: "gen_ai.tool.name", "prompts/get": "gen_ai.prompt.name"}


def start_attempt(call: CallAdmitted) -> Span | Nothing:
    """Start the span of one attempt, with the attributes of OpenTelemetry's MCP conventions.

    Return `NOTHING` if the call is not traced.
    """
    parent = current()
    if not isinstance(parent, Span):
        return NOTHING
    kind = _NAMED.get(call.method)
    before = parent.attributes.get(ATTEMPTS, 0)
    number = before + 1 if isinstance(before, int) else 1
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


def model_span_name(call: CallAdmitted) -> str:
    """Return the name of a model request's span: the operation and the model."""
    return f"{MODEL_OPERATIONS.get(call.method, call.method)} {call.tool}"


def model_request_attributes(
    call: CallAdmitted, requested: ModelCall, provider_kind: str
) -> Attributes:
    """Return the attributes of a model request by OpenTelemetry's GenAI conventions.

    Prompts, responses and the definitions of tools are never attributes.
    """
    attributes: Attributes = {
        "gen_ai.operation.name": MODEL_OPERATIONS.get(call.method, call.method),
        "gen_ai.provider.name": _PROVIDERS.get(provider_kind, provider_kind),
        "gen_ai.request.model": call.tool,
        "gen_ai.request.stream": requested.stream,
        "toolbus.server": call.server,
        "toolbus.attempt": requested.attempt + 1,
    }
    if requested.output is not None:
        attributes["gen_ai.request.max_tokens"] = requested.output
    if requested.choices != 1:
        attributes["gen_ai.request.choice.count"] = requested.choices
    return attributes


def model_usage_attributes(
    usage: Usage, finish_reason: str = "", first_token: float = 0.0, response_model: str = ""
) -> Attributes:
    """Return the attributes of a model's response by OpenTelemetry's GenAI conventions.

    `first_token` is the time to the first part of a streamed response in seconds, and
    `response_model` is the name of the model in the response. Empty values are left out.
    """
    optional: Attributes = {
        "gen_ai.response.model": response_model,
        "gen_ai.response.finish_reasons": (finish_reason,) if finish_reason else (),
        "gen_ai.response.time_to_first_chunk": first_token,
        "gen_ai.usage.cache_read.input_tokens": usage.cached,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning,
    }
    return {
        "gen_ai.usage.input_tokens": usage.input,
        "gen_ai.usage.output_tokens": usage.output,
        **{name: value for name, value in optional.items() if value},
    }


def end_span(span: Span, attributes: Attributes, failure: str) -> None:
    """Add the attributes to a span, and end it. `failure` is an error's code; empty for none."""
    for name, value in attributes.items():
        span.note(name, value)
    if failure:
        span.fail(failure)
    span.end()
