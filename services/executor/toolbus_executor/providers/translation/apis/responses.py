"""The responses API: what translations read of it, and the items that they write.

Source: the OpenAPI document of OpenAI. A reasoning item carries a thinking block of the messages
API in `encrypted_content`, as `thinking:<signature>` or `redacted:<data>`.
"""

from secrets import token_hex
from typing import Any

from msgspec import Struct

from toolbus_common.contracts import model_calls
from toolbus_executor.providers.translation.apis import chat

THINKING, REDACTED = "thinking:", "redacted:"


class Part(Struct):
    """A part of the content of a message, or of the output of a tool."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None


class Item(Struct):
    """An item of the input, of any type. An item without a type is a message."""

    type: str | None = None
    role: str | None = None
    content: str | list[Part] | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: str | None = None
    output: str | list[Part] | None = None
    summary: list[Part] | None = None
    encrypted_content: str | None = None


class Tool(Struct):
    """A tool. Only functions have parameters; a namespace has tools."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    tools: "list[Tool] | None" = None


class ToolChoice(Struct):
    """A tool choice that names tools."""

    type: str
    name: str | None = None
    mode: str | None = None
    tools: list[Tool] | None = None


class Format(Struct):
    """The form of the response."""

    type: str
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class Text(Struct):
    """Options of the text."""

    format: Format | None = None


class Reasoning(Struct):
    """Options of the reasoning."""

    effort: str | None = None


class Request(Struct):
    """A request."""

    input: str | list[Item] = []
    model: str = ""
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stream: bool | None = None
    tools: list[Tool] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    text: Text | None = None
    reasoning: Reasoning | None = None
    user: str | None = None
    safety_identifier: str | None = None
    include: list[str] | None = None
    top_logprobs: int | None = None


def message_item(status: str, *parts: dict[str, Any]) -> dict[str, Any]:
    """Return a message of the model."""
    return {
        "id": f"msg_{token_hex(12)}",
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": list(parts),
    }


def text_part(text: str) -> dict[str, Any]:
    """Return a text of a message of the model."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def refusal_part(text: str) -> dict[str, Any]:
    """Return a refusal of the model."""
    return {"type": "refusal", "refusal": text}


def call_item(
    status: str, call_id: str, function: dict[str, str], arguments: str
) -> dict[str, Any]:
    """Return a tool call of the model. `function` has the fields that name the function."""
    return {
        "id": f"fc_{token_hex(12)}",
        "type": "function_call",
        "status": status,
        "call_id": call_id,
        **function,
        "arguments": arguments,
    }


def reasoning_item(text: str, block: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the reasoning of the model; `block` is a thinking block of the messages API."""
    made: dict[str, Any] = {
        "id": f"rs_{token_hex(12)}",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": text}] if text else [],
    }
    if block is not None:
        made["encrypted_content"] = encrypted_content(block)
    return made


def encrypted_content(block: dict[str, Any]) -> str:
    """Return what a reasoning item keeps of a thinking block."""
    if block.get("type") == "redacted_thinking":
        return f"{REDACTED}{block.get('data', '')}"
    return f"{THINKING}{block.get('signature', '')}"


def thinking_block(item: Item) -> dict[str, Any] | None:
    """Return the thinking block that a reasoning item carries; None if it carries none."""
    content = item.encrypted_content or ""
    if content.startswith(REDACTED):
        return {"type": "redacted_thinking", "data": content.removeprefix(REDACTED)}
    if not content.startswith(THINKING):
        return None
    text = "".join(part.text or "" for part in item.summary or ())
    signature = content.removeprefix(THINKING)
    return {"type": "thinking", "thinking": text, "signature": signature}


def usage_body(usage: model_calls.Usage) -> dict[str, Any]:
    """Return the field `usage` of a response."""
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {
            "cached_tokens": usage.cached,
            "cache_write_tokens": usage.cache_write,
            **chat.media_input(usage),
        },
        "output_tokens": usage.output,
        "output_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            **chat.media_output(usage),
        },
        "total_tokens": usage.input + usage.output,
    }
