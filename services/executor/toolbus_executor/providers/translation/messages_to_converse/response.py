"""Translation of a response of the Converse API to the messages API."""

from secrets import token_hex
from typing import Any

from toolbus_common.contracts.model_calls import Usage
from toolbus_common.errors import UpstreamInvalidError
from toolbus_executor.providers.translation.apis import converse, messages
from toolbus_executor.providers.translation.body import read_response
from toolbus_executor.providers.usage import Facts


def facts_of(body: Any) -> Facts:
    """Return the facts of a response."""
    response = read_response(body, converse.Response)
    calls = [block for block in _source(response) if block.tool_use is not None]
    usage = converse.usage_of(response.usage)
    return Facts(usage, (response.stop_reason or "")[:64], len(calls))


def message(body: Any, model: str) -> dict[str, Any]:
    """Return the response for the client."""
    response = read_response(body, converse.Response)
    if response.output is None or response.output.message is None:
        raise UpstreamInvalidError("The provider's response has no message. Repeat the request.")
    return {
        **head(model),
        "content": [made for block in _source(response) for made in _blocks(block)],
        "stop_reason": stop_reason(response.stop_reason),
        "usage": messages.usage_body(converse.usage_of(response.usage) or Usage()),
    }


def head(model: str) -> dict[str, Any]:
    """Return a message without content."""
    return {
        "id": f"msg_{token_hex(12)}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }


def stop_reason(reason: str | None) -> str:
    """Return the stop reason. Raises `UpstreamInvalidError` for a response that failed."""
    if reason in converse.FAILURES:
        raise UpstreamInvalidError(f"The model's response ended with {reason}. Repeat the request.")
    return converse.STOP_REASONS.get(reason or "", "refusal")  # an unknown reason is no success


def _source(response: converse.Response) -> list[converse.Block]:
    message = response.output.message if response.output else None
    return message.content if message else []


def _blocks(block: converse.Block) -> list[dict[str, Any]]:
    if block.text is not None:
        return [{"type": "text", "text": block.text}]
    if block.citations_content is not None:
        texts = [each.text or "" for each in block.citations_content.content or ()]
        return [{"type": "text", "text": "".join(texts)}]
    if (call := block.tool_use) is not None:
        arguments = call.input if isinstance(call.input, dict) else {}
        use = {"type": "tool_use", "id": call.tool_use_id, "name": call.name, "input": arguments}
        return [use]
    reasoning = block.reasoning_content
    if reasoning is None:
        return []
    if reasoning.redacted_content is not None:
        return [{"type": "redacted_thinking", "data": reasoning.redacted_content}]
    text = reasoning.reasoning_text or converse.ReasoningText()
    signature = text.signature or ""
    return [{"type": "thinking", "thinking": text.text, "signature": signature}]
