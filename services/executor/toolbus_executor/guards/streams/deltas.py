"""The pieces of texts in the events of a stream, in the form of any API for clients (no I/O)."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any, NamedTuple

_CHAT_TEXTS = ("content", "reasoning_content", "reasoning", "refusal")
_MESSAGE_TEXTS = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "input_json_delta": "partial_json",
}
_ARGUMENTS = ("arguments", "partial_json", "input")
# Events of the responses API whose `delta` is binary.
_BINARY = frozenset({"response.audio.delta", "response.output_audio.delta"})
_END_OF_BLOCK, _END_OF_MESSAGE = "content_block_stop", ("message_delta", "message_stop")
_ENDS_OF_RESPONSE = (
    "response.completed", "response.incomplete", "response.failed", "error",
)  # fmt: skip

Key = tuple[Any, ...]


class Delta(NamedTuple):
    """A piece of one text, and its place in an event: `holder[name]`.

    `key` identifies the text within the stream. `is_arguments` is set for arguments of a tool call.
    """

    key: Key
    holder: dict[str, Any]
    name: str
    is_arguments: bool


def deltas_in(event: dict[str, Any]) -> list[Delta]:
    """Return the pieces of texts in an event."""
    return [*_of_chat(event), *_of_messages(event), *_of_responses(event)]


def ends(event: dict[str, Any], key: Key) -> bool:
    """Return whether the text of this key ends with this event, at the latest."""
    kind = event.get("type")
    if key[0] == "chat":
        return any(
            choice.get("finish_reason") is not None and choice.get("index", 0) == key[1]
            for choice in _dicts(event.get("choices"))
        )
    if key[0] == "messages":
        same = kind == _END_OF_BLOCK and event.get("index") == key[1]
        return same or kind in _END_OF_MESSAGE
    if kind in _ENDS_OF_RESPONSE:
        return True
    if not isinstance(kind, str) or not kind.endswith(".done"):
        return False
    if kind == "response.output_item.done":
        return bool(event.get("output_index") == key[3])
    part = kind in ("response.content_part.done", "response.reasoning_summary_part.done")
    same = part or kind == f"{key[1]}.done"
    return same and _place(event) == key[2:]


def is_empty(event: dict[str, Any], deltas: list[Delta]) -> bool:
    """Return whether an event contains only pieces that have become empty."""
    if not deltas or any(delta.holder.get(delta.name) for delta in deltas):
        return False
    if event.get("usage"):
        return False
    for choice in _dicts(event.get("choices")):
        delta = choice.get("delta")
        names = {delta.name for delta in deltas}
        if choice.get("finish_reason") is not None or not isinstance(delta, dict):
            return False
        if any(value for name, value in delta.items() if name not in names):
            return False
    return True


def with_rest(event: dict[str, Any], key: Key, text: str) -> dict[str, Any]:
    """Return an event with the rest of one text, made from the last event that had a piece of it.

    It has no other content than that.
    """
    made = deepcopy(event)
    if key[0] == "chat":
        made.pop("usage", None)
        choices = [each for each in _dicts(made.get("choices")) if each.get("index", 0) == key[1]]
        made["choices"] = choices[:1]
        for choice in made["choices"]:
            choice["finish_reason"] = None
            choice["delta"] = _chat_delta(key, text)
            choice.pop("logprobs", None)
        return made
    for delta in deltas_in(made):
        delta.holder[delta.name] = text
    return made


def _chat_delta(key: Key, text: str) -> dict[str, Any]:
    if key[2] != "tool_calls":
        return {key[2]: {key[3]: text}} if len(key) > 3 else {key[2]: text}  # noqa: PLR2004
    return {"tool_calls": [{"index": key[3], key[4]: {key[5]: text}}]}


def _of_chat(event: dict[str, Any]) -> Iterator[Delta]:
    key: Key
    for choice in _dicts(event.get("choices")):
        delta, index = choice.get("delta"), choice.get("index", 0)
        if not isinstance(delta, dict):
            continue
        for name in _CHAT_TEXTS:
            if isinstance(delta.get(name), str):
                yield Delta(("chat", index, name), delta, name, is_arguments=False)
        for member, name in (("function_call", "arguments"), ("audio", "transcript")):
            held = delta.get(member)
            if isinstance(held, dict) and isinstance(held.get(name), str):
                key = ("chat", index, member, name)
                yield Delta(key, held, name, is_arguments=name == "arguments")
        for place, call in enumerate(_dicts(delta.get("tool_calls"))):
            for member, name in (("function", "arguments"), ("custom", "input")):
                held = call.get(member)
                if isinstance(held, dict) and isinstance(held.get(name), str):
                    key = ("chat", index, "tool_calls", call.get("index", place), member, name)
                    yield Delta(key, held, name, is_arguments=True)


def _of_messages(event: dict[str, Any]) -> Iterator[Delta]:
    delta = event.get("delta")
    if event.get("type") != "content_block_delta" or not isinstance(delta, dict):
        return
    name = _MESSAGE_TEXTS.get(str(delta.get("type")), "")
    if isinstance(delta.get(name), str):
        key = ("messages", event.get("index"), name)
        yield Delta(key, delta, name, is_arguments=name in _ARGUMENTS)


def _of_responses(event: dict[str, Any]) -> Iterator[Delta]:
    kind = event.get("type")
    if not isinstance(kind, str) or not kind.endswith(".delta") or kind in _BINARY:
        return
    if isinstance(event.get("delta"), str):
        whole = kind.removesuffix(".delta")
        is_arguments = whole.endswith(("arguments", "input", "code"))
        yield Delta(("responses", whole, *_place(event)), event, "delta", is_arguments)


def _place(event: dict[str, Any]) -> Key:
    part = event.get("content_index", event.get("summary_index"))
    return event.get("item_id"), event.get("output_index"), part


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
