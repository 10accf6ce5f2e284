"""The messages API: what translations read of it, and the bodies that they write.

Source: the OpenAPI document of Anthropic.
"""

from typing import Any

from msgspec import Struct

from toolbus_common.contracts import model_calls

STOP_REASONS = {  # by the finish reason of the chat completions API
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
FINISH_REASONS = {  # of the chat completions API, by the stop reason
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


class Source(Struct):
    """The source of an image or a document."""

    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None


class Block(Struct):
    """A content block of any type; the fields of other types are unset.

    `source` is a text in a block of the type `search_result`.
    """

    type: str
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    source: Source | str | None = None
    title: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: "str | list[Block] | dict[str, Any] | None" = None
    is_error: bool | None = None
    cache_control: dict[str, Any] | None = None


class Message(Struct):
    """A message of a request."""

    role: str
    content: str | list[Block]


class Tool(Struct):
    """A tool. The type of a tool of the client is absent or `custom`."""

    name: str = ""
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None
    cache_control: dict[str, Any] | None = None


class ToolChoice(Struct):
    """A tool choice."""

    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Struct):
    """The configuration of thinking."""

    type: str
    budget_tokens: int | None = None


class Format(Struct):
    """The form of the response."""

    type: str
    schema: dict[str, Any] | None = None


class OutputConfig(Struct):
    """The effort, and the form of the response."""

    effort: str | None = None
    format: Format | None = None


class Metadata(Struct):
    """Metadata of a request."""

    user_id: str | None = None


class Request(Struct):
    """A request."""

    messages: list[Message]
    max_tokens: int
    model: str = ""
    system: str | list[Block] | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    stream: bool | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    metadata: Metadata | None = None


class OutputDetails(Struct):
    """Details of the output tokens."""

    thinking_tokens: int | None = None


class Usage(Struct):
    """The usage. `input_tokens` does not include cached tokens."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    output_tokens_details: OutputDetails | None = None


class Response(Struct):
    """A response. In a stream it is the field `message` of the first event."""

    id: str | None = None
    model: str | None = None
    content: list[Block] = []
    stop_reason: str | None = None
    usage: Usage | None = None


class Delta(Struct):
    """A part of a content block, or the stop reason of the message."""

    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class Event(Struct):
    """An event of a stream, of any type."""

    type: str
    index: int = 0
    message: Response | None = None
    content_block: Block | None = None
    delta: Delta | None = None
    usage: Usage | None = None
    error: Any = None


def usage_of(usage: Usage | None) -> model_calls.Usage:
    """Return the token counts."""
    if usage is None:
        return model_calls.Usage()
    cached, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    details = usage.output_tokens_details or OutputDetails()
    return model_calls.Usage(
        input=(usage.input_tokens or 0) + cached + written,
        cached=cached,
        cache_write=written,
        output=usage.output_tokens or 0,
        reasoning=details.thinking_tokens or 0,
    )


def usage_body(usage: model_calls.Usage) -> dict[str, Any]:
    """Return the field `usage` of a response."""
    body: dict[str, Any] = {
        "input_tokens": max(0, usage.input - usage.cached - usage.cache_write),
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.output,
    }
    if usage.reasoning:
        body["output_tokens_details"] = {"thinking_tokens": usage.reasoning}
    return body


def error_body(message: str) -> dict[str, Any]:
    """Return an error of a stream."""
    return {"type": "error", "error": {"type": "api_error", "message": message}}
