"""The Converse API of Amazon Bedrock: what translations read of its responses.

Source: the service model `bedrock-runtime` of botocore. Binary values are in base64.
"""

from typing import Any

from msgspec import Struct

from toolbus_common.contracts.model_calls import Usage
from toolbus_executor.providers.translation.decoded_facts import reported_usage

STOP_REASONS = {  # to those of the messages API
    "end_turn": "end_turn",
    "tool_use": "tool_use",
    "max_tokens": "max_tokens",
    "stop_sequence": "stop_sequence",
    "guardrail_intervened": "refusal",
    "content_filtered": "refusal",
    "model_context_window_exceeded": "model_context_window_exceeded",
}
FAILURES = frozenset({"malformed_model_output", "malformed_tool_use"})


class ToolUse(Struct, rename="camel"):
    """A tool call. In a stream, `input` is a part of its text."""

    tool_use_id: str = ""
    name: str = ""
    input: Any = None


class ReasoningText(Struct):
    """A part of the reasoning."""

    text: str = ""
    signature: str | None = None


class Reasoning(Struct, rename="camel"):
    """The reasoning. In a stream, it contains `text` and `signature` directly."""

    reasoning_text: ReasoningText | None = None
    redacted_content: str | None = None
    text: str | None = None
    signature: str | None = None


class Cited(Struct):
    """A text with citations."""

    text: str | None = None


class Citations(Struct):
    """The texts with citations."""

    content: list[Cited] | None = None


class Block(Struct, rename="camel"):
    """A content block, or a part of it."""

    text: str | None = None
    tool_use: ToolUse | None = None
    reasoning_content: Reasoning | None = None
    citations_content: Citations | None = None


class Message(Struct):
    """The message of a response."""

    content: list[Block] = []


class Output(Struct):
    """The output of a response."""

    message: Message | None = None


class Response(Struct, rename="camel"):
    """A response."""

    output: Output | None = None
    stop_reason: str | None = None
    usage: dict[str, Any] | None = None


class Event(Struct, rename="camel"):
    """An event of a stream, of any type."""

    content_block_index: int = 0
    start: Block | None = None
    delta: Block | None = None
    stop_reason: str | None = None
    usage: dict[str, Any] | None = None
    message: str | None = None


def usage_of(reported: dict[str, Any] | None) -> Usage | None:
    """Return the token counts. `inputTokens` does not include cached tokens.

    Bedrock does not report which tokens are images.
    """
    if reported is None:
        return None

    def count(name: str) -> int:
        value = reported.get(f"{name}Tokens")
        return value if isinstance(value, int) else 0

    read, written = max(0, count("cacheReadInput")), max(0, count("cacheWriteInput"))
    given = count("input") + read + written
    return reported_usage(
        Usage(input=given, cached=read, cache_write=written, output=count("output"))
    )
