"""Translation of a response of the messages API to the chat completions API."""

from secrets import token_hex
from typing import Any

from toolbus_executor.providers.translation.apis import chat, messages
from toolbus_executor.providers.translation.body import encode, read_response


def completion(body: dict[str, Any]) -> dict[str, Any]:
    """Return the response for the client."""
    response = read_response(body, messages.Response)
    texts = [block.text or "" for block in response.content if block.type == "text"]
    refused = response.stop_reason == "refusal"
    text = "".join(texts) or None
    reply: dict[str, Any] = {
        "role": "assistant",
        "content": None if refused else text,
        "refusal": text if refused else None,
    }
    if calls := [_call(block) for block in response.content if block.type == "tool_use"]:
        reply["tool_calls"] = calls
    if blocks := [b for each in response.content if (b := thinking_block(each)) is not None]:
        reply["thinking_blocks"] = blocks
        reply["reasoning_content"] = "".join(each.get("thinking", "") for each in blocks)
    choice = {
        "index": 0,
        "message": reply,
        "finish_reason": finish_reason(response.stop_reason),
        "logprobs": None,
    }
    return {
        **chat.head(response.id, response.model),
        "object": "chat.completion",
        "choices": [choice],
        "usage": chat.usage_body(messages.usage_of(response.usage)),
    }


def finish_reason(stop_reason: str | None) -> str:
    """Return the finish reason; `stop` for reasons that the client's API does not have."""
    return messages.FINISH_REASONS.get(stop_reason or "", "stop")


def thinking_block(block: messages.Block) -> dict[str, Any] | None:
    """Return a thinking block as the client can send it back; None for other blocks."""
    if block.type == "thinking":
        signature = block.signature or ""
        return {"type": "thinking", "thinking": block.thinking or "", "signature": signature}
    if block.type == "redacted_thinking":
        return {"type": "redacted_thinking", "data": block.data or ""}
    return None


def _call(block: messages.Block) -> dict[str, Any]:
    arguments = encode(block.input or {}).decode()
    return chat.tool_call(block.id or f"call_{token_hex(12)}", block.name or "", arguments)
