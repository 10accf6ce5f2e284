"""Translation of a response of the chat completions API to the messages API."""

from secrets import token_hex
from typing import Any

from toolbus_common.errors import UpstreamInvalidError
from toolbus_executor.providers.translation.apis import chat, messages
from toolbus_executor.providers.translation.body import arguments_of, read_response


def message(body: dict[str, Any]) -> dict[str, Any]:
    """Return the response for the client."""
    response = read_response(body, chat.Response)
    if not response.choices or response.choices[0].message is None:
        raise UpstreamInvalidError(
            "The provider's response has no choice. Check the provider's 'apis'."
        )
    choice, reply = response.choices[0], response.choices[0].message
    calls = _tool_uses(reply.tool_calls or [], choice.finish_reason)
    return {
        **head(response.id, response.model),
        "content": [*_texts(reply), *calls],
        "stop_reason": stop_reason(choice.finish_reason, bool(calls), bool(reply.refusal)),
        "usage": messages.usage_body(chat.usage_of(response.usage)),
    }


def head(message_id: str | None, model: str | None) -> dict[str, Any]:
    """Return a message without content."""
    return {
        "id": message_id or f"msg_{token_hex(12)}",
        "type": "message",
        "role": "assistant",
        "model": model or "",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }


def stop_reason(finish_reason: str | None, calls: bool, refused: bool) -> str:  # noqa: FBT001
    """Return the stop reason. Some servers finish with `stop` after tool calls."""
    if refused:
        return "refusal"
    found = messages.STOP_REASONS.get(finish_reason or "stop", "end_turn")
    return "tool_use" if calls and found == "end_turn" else found


def _texts(reply: chat.Reply) -> list[dict[str, Any]]:
    """Return the blocks before the tool calls.

    The signature of a thinking block is empty unless another translation has signed it: no provider
    of the chat completions API signs.
    """
    made = [thinking(block) for block in reply.thinking_blocks or ()]
    if reply.thought and not any(block["thinking"] for block in made):
        made.insert(0, {"type": "thinking", "thinking": reply.thought, "signature": ""})
    made += [{"type": "text", "text": t} for t in (reply.text, reply.refusal) if t]
    return made


def thinking(block: dict[str, Any]) -> dict[str, Any]:
    """Return a thinking block with values of the right types."""
    made: dict[str, Any] = {"type": "thinking"}
    for name in ("thinking", "signature"):
        made[name] = value if isinstance(value := block.get(name), str) else ""
    return made


def _tool_uses(calls: list[chat.ToolCall], finish_reason: str | None) -> list[dict[str, Any]]:
    """Return the tool calls. A call that was cut at the limit of output tokens is left out."""
    made = []
    for call in calls:
        try:
            made.append(_tool_use(call))
        except UpstreamInvalidError:
            if finish_reason != "length":
                raise
    return made


def _tool_use(call: chat.ToolCall) -> dict[str, Any]:
    function = call.function or chat.FunctionCall()
    name = function.name or ""
    return {
        "type": "tool_use",
        "id": call.id or f"toolu_{token_hex(12)}",
        "name": name,
        "input": arguments_of(function.arguments, name, UpstreamInvalidError),
    }
