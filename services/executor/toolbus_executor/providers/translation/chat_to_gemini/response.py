"""Translation of a response of Gemini to the chat completions API."""

from secrets import token_hex
from typing import Any

from toolbus_common.contracts.model_calls import Usage
from toolbus_common.errors import UpstreamInvalidError
from toolbus_executor.providers.translation.apis import chat, gemini
from toolbus_executor.providers.translation.body import encode, read_response
from toolbus_executor.providers.usage import Facts


def facts_of(body: Any) -> Facts:
    """Return the facts of a response."""
    response = read_response(body, gemini.Response)
    candidate = (response.candidates or [gemini.Candidate()])[0]
    calls = [part for part in parts_of(candidate) if part.function_call is not None]
    usage = gemini.usage_of(response.usage_metadata)
    return Facts(usage, (candidate.finish_reason or "")[:64], len(calls))


def completion(body: Any) -> dict[str, Any]:
    """Return the response for the client."""
    response = read_response(body, gemini.Response)
    candidates = response.candidates or []
    reply: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
    if not candidates:
        if not (refusal := blocked(response)):
            raise UpstreamInvalidError(
                "The provider's response has no candidate. Repeat the request."
            )
        reply["refusal"], reason = refusal, "content_filter"
    else:
        _fill(reply, candidates[0])
        reason = finish_reason(candidates[0], has_calls="tool_calls" in reply)
    usage = gemini.usage_of(response.usage_metadata) or Usage()
    return {
        **chat.head(response.response_id, response.model_version),
        "object": "chat.completion",
        "choices": [{"index": 0, "message": reply, "finish_reason": reason, "logprobs": None}],
        "usage": chat.usage_body(usage),
    }


def _fill(reply: dict[str, Any], candidate: gemini.Candidate) -> None:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    blocks: list[dict[str, Any]] = []
    for part in parts_of(candidate):
        if part.thought:
            thoughts.append(part.text or "")
            continue
        if part.thought_signature:
            unsigned = "" if blocks else "".join(thoughts)
            blocks.append(thinking_block(part, len(calls), unsigned))
        if part.function_call is not None:
            calls.append(tool_call(part.function_call, part.thought_signature))
        elif part.text:
            texts.append(part.text)
    reply["content"] = "".join(texts) or None
    if calls:
        reply["tool_calls"] = calls
    if thoughts:
        reply["reasoning_content"] = "".join(thoughts)
    if blocks:
        reply["thinking_blocks"] = blocks


def parts_of(candidate: gemini.Candidate) -> list[gemini.Part]:
    """Return the parts of a candidate."""
    return (candidate.content.parts if candidate.content else None) or []


def thinking_block(part: gemini.Part, index: int, thought: str) -> dict[str, Any]:
    """Return the thinking block that carries the signature of a part.

    `index` is that of the next tool call, and `thought` is the reasoning before the part.
    """
    place = gemini.OF_TEXT if part.function_call is None else str(index)
    signature = gemini.signed(place, part.thought_signature or "")
    return {"type": "thinking", "thinking": thought, "signature": signature}


def tool_call(call: gemini.FunctionCall, signature: str | None) -> dict[str, Any]:
    """Return a tool call, with its signature in the form of Google's own chat completions API."""
    arguments = encode(call.args or {}).decode()
    made = chat.tool_call(call.id or f"call_{token_hex(12)}", call.name, arguments)
    if signature:
        made["extra_content"] = {"google": {"thought_signature": signature}}
    return made


def blocked(response: gemini.Response) -> str:
    """Return the refusal of a blocked prompt; empty if it was not blocked."""
    feedback = response.prompt_feedback
    if feedback is None or not feedback.block_reason:
        return ""
    return f"The provider blocked the prompt: {feedback.block_reason[:64]}."


def finish_reason(candidate: gemini.Candidate, *, has_calls: bool) -> str:
    """Return the finish reason. Raises `UpstreamInvalidError` for a response that failed."""
    found = candidate.finish_reason or "STOP"
    if found in gemini.FAILURES:
        detail = f": {candidate.finish_message[:200]}" if candidate.finish_message else ""
        raise UpstreamInvalidError(
            f"The model's response ended with {found}{detail}. Repeat the request."
        )
    reason = gemini.FINISH_REASONS.get(found, "content_filter")  # an unknown reason is no success
    return "tool_calls" if has_calls and reason == "stop" else reason
