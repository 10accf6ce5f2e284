"""Translation of a response of the chat completions API to the responses API."""

from secrets import token_hex
from time import time
from typing import Any

from toolbus_common.errors import UpstreamInvalidError
from toolbus_executor.providers.translation.apis import chat, responses
from toolbus_executor.providers.translation.body import read_response
from toolbus_executor.providers.translation.responses_to_chat.namespaces import call_name

# Fields of the request that a response repeats, and the values of those that are absent.
_REPEATED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "reasoning": None,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
}
_REASONS = {"length": "max_output_tokens", "content_filter": "content_filter"}


def repeated(body: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of the request that the response repeats."""
    return {
        name: default if body.get(name) is None else body[name]
        for name, default in _REPEATED.items()
    }


def response(body: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """Return the response for the client. `fields` are the request's fields that it repeats."""
    source = read_response(body, chat.Response)
    if not source.choices or source.choices[0].message is None:
        raise UpstreamInvalidError(
            "The provider's response has no choice. Check the provider's 'apis'."
        )
    choice, end = source.choices[0], outcome(source.choices[0].finish_reason)
    return {
        **head(source, fields),
        **end,
        "output": _items(choice.message or chat.Reply(), end["status"], fields.get("tools")),
        "usage": responses.usage_body(chat.usage_of(source.usage)),
    }


def head(source: chat.Response, fields: dict[str, Any]) -> dict[str, Any]:
    """Return a response in progress, without output."""
    return {
        "id": f"resp_{source.id or token_hex(12)}",
        "object": "response",
        "created_at": source.created_at or int(time()),
        "model": source.model or "",
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "previous_response_id": None,
        "store": False,
        "truncation": "disabled",
        **fields,
        "output": [],
        "usage": None,
    }


def outcome(finish_reason: str | None) -> dict[str, Any]:
    """Return the fields for the status."""
    if reason := _REASONS.get(finish_reason or ""):
        return {"status": "incomplete", "incomplete_details": {"reason": reason}}
    return {"status": "completed"}


def _items(reply: chat.Reply, status: str, tools: Any) -> list[dict[str, Any]]:
    """Return the items of the output. The last one has the status of the response."""
    made: list[dict[str, Any]] = []
    if reply.thinking_blocks:
        for block in reply.thinking_blocks:
            text = block.get("thinking")
            made.append(responses.reasoning_item(text if isinstance(text, str) else "", block))
    elif reply.thought:
        made.append(responses.reasoning_item(reply.thought))
    if text := reply.text:
        made.append(responses.message_item("completed", responses.text_part(text)))
    if reply.refusal:
        made.append(responses.message_item("completed", responses.refusal_part(reply.refusal)))
    for call in reply.tool_calls or ():
        function = call.function or chat.FunctionCall()
        arguments, call_id = function.arguments or "{}", call.id or f"call_{token_hex(12)}"
        made.append(
            responses.call_item(
                "completed", call_id, call_name(function.name or "", tools), arguments
            )
        )
    if made and "status" in made[-1]:
        made[-1]["status"] = status
    return made
