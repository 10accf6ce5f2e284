"""The pieces of texts in the events of a stream, in the form of any API for clients (no I/O).

Every text in a choice or a delta is a piece, also in members that Toolbus does not know: a client
can join it with the pieces at the same place of other events.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from toolbus_common.errors import UpstreamInvalidError
from toolbus_executor.guards.completion_texts import DROPPED, LABELS, MAX_DEPTH, OPAQUE

_ARGUMENTS = frozenset({"arguments", "partial_json", "input"})
# Members of a choice that are complete in each event, and binary data, whose pieces are separate.
_COMPLETE = LABELS | OPAQUE | DROPPED | {"name", "annotations", "data", "error"}
_KINDS = {"text": "text_delta", "thinking": "thinking_delta", "partial_json": "input_json_delta"}
# Events of the responses API whose `delta` is binary.
_BINARY = frozenset({"response.audio.delta", "response.output_audio.delta"})
_END_OF_BLOCK, _END_OF_MESSAGE = "content_block_stop", ("message_delta", "message_stop")
_ENDS_OF_RESPONSE = (
    "response.completed", "response.incomplete", "response.failed", "error",
)  # fmt: skip
_PARTS = ("response.content_part.done", "response.reasoning_summary_part.done")
_LONGEST_PLACE, _LARGEST_PLACE = 256, 1 << 31
_TOO_DEEP = "The response is nested too deeply for its guards. Request a simpler response."
_KEPT = ("index", "type")  # members of an object that identify the place of its piece

Key = tuple[Any, ...]


class Delta(NamedTuple):
    """A piece of one text, and its place in an event: `holder[name]`.

    `key` identifies the text within the stream. `is_arguments` is set for arguments of a tool call.
    """

    key: Key
    holder: Any
    name: Any
    is_arguments: bool


def deltas_in(event: dict[str, Any]) -> list[Delta]:
    """Return the pieces of texts in an event. Raises `UpstreamInvalidError`."""
    found: list[Delta] = []
    if "choices" in event:
        for choice in _dicts(event["choices"]):
            found += _strings(choice, ("chat", _place(choice, "index") or 0), MAX_DEPTH)
    kind = event.get("type")
    if isinstance(kind, str):
        if kind.startswith("content_block_"):
            found += _of_messages(event)
        elif kind.endswith(".delta") and kind not in _BINARY:
            key = ("responses", kind.removesuffix(".delta"), *_places(event))
            found += _of_response(event, key)
    return found


def ends(event: dict[str, Any], key: Key) -> bool:
    """Return whether the text of this key ends with this event, at the latest."""
    kind = event.get("type")
    if key[0] == "chat":
        return any(
            choice.get("finish_reason") and (_place(choice, "index") or 0) == key[1]
            for choice in _dicts(event.get("choices"))
        )
    if key[0] == "messages":
        return (kind == _END_OF_BLOCK and event.get("index") == key[1]) or kind in _END_OF_MESSAGE
    if kind in _ENDS_OF_RESPONSE:
        return True
    if not isinstance(kind, str) or not kind.endswith(".done"):
        return False
    if kind == "response.output_item.done":
        return bool(event.get("output_index") == key[3])
    return (kind in _PARTS or kind == f"{key[1]}.done") and _places(event) == key[2:6]


def is_empty(event: dict[str, Any], deltas: list[Delta]) -> bool:
    """Return whether an event contains only pieces that have become empty."""
    if not deltas or any(delta.holder[delta.name] for delta in deltas):
        return False
    if event.get("type") == "content_block_start" or event.get("usage"):
        return False
    return not any(_has_more(choice) for choice in _dicts(event.get("choices")))


def with_rest(event: dict[str, Any], delta: Delta, text: str) -> dict[str, Any]:
    """Return an event that contains only the rest of one text.

    `event` is the last event that had a piece of this text.
    """
    if delta.key[0] == "chat":
        made = {name: each for name, each in event.items() if name != "usage"}
        made["choices"] = _branch(event["choices"], delta, text)
        for choice in made["choices"]:
            choice["finish_reason"] = None
        return made
    made = dict(event)
    if event.get("type") == "content_block_start":
        made.pop("content_block", None)
        name = delta.name
        return made | {
            "type": "content_block_delta",
            "delta": {"type": _KINDS.get(name, f"{name}_delta"), name: text},
        }
    if delta.holder is event:
        return made | {delta.name: text}
    made["delta"] = _branch(event["delta"], delta, text)
    return made


def _strings(value: Any, key: Key, depth: int) -> Iterator[Delta]:
    """Yield the texts in a choice or a delta."""
    if depth < 0:
        raise UpstreamInvalidError(_TOO_DEEP)
    for name, each in value.items():
        if isinstance(each, str):
            if each and name not in _COMPLETE:
                # `content` is a text, or a list of parts with texts: both forms continue one text.
                own = key if name == "text" and key[-1] == "content" else (*key, name)
                yield Delta(own, value, name, name in _ARGUMENTS)
        elif isinstance(each, dict):
            if name not in _COMPLETE:
                yield from _strings(each, key if name == "delta" else (*key, name), depth - 1)
        elif isinstance(each, list) and name not in _COMPLETE:
            yield from _listed(each, (*key, name), depth - 1)


def _listed(value: list[Any], key: Key, depth: int) -> Iterator[Delta]:
    calls, content = key[-1] == "tool_calls", key[-1] == "content"
    for position, each in enumerate(value):
        if isinstance(each, str):
            if each:
                yield Delta(key, value, position, is_arguments=False)
        elif isinstance(each, dict):
            place = None if content else _place(each, "index")
            if place is None and calls:
                place = each["index"] = position
            yield from _strings(each, key if place is None else (*key, place), depth)
        elif isinstance(each, list):
            if depth < 0:
                raise UpstreamInvalidError(_TOO_DEEP)
            yield from _listed(each, key, depth - 1)


def _of_messages(event: dict[str, Any]) -> Iterator[Delta]:
    """Yield the texts of a delta, and those at the start of a block, which a delta continues."""
    member = "content_block" if event["type"] == "content_block_start" else "delta"
    held = event.get(member)
    if isinstance(held, dict):
        key = ("messages", _place(event, "index"))
        for name, each in held.items():
            if isinstance(each, str) and each and name not in _COMPLETE:
                yield Delta((*key, name), held, name, name in _ARGUMENTS)


def _of_response(event: dict[str, Any], key: Key) -> Iterator[Delta]:
    delta = event.get("delta")
    if isinstance(delta, str):
        if delta:
            yield Delta(key, event, "delta", key[1].endswith(("arguments", "input", "code")))
    elif isinstance(delta, dict):
        yield from _strings(delta, key, MAX_DEPTH)
    elif isinstance(delta, list):
        yield from _listed(delta, key, MAX_DEPTH)


def _branch(value: Any, delta: Delta, text: str) -> Any:
    """Return a copy of a value with one text only, and the members that identify its place."""
    if value is delta.holder:
        if isinstance(value, list):
            return [text]
        return _kept(value) | {delta.name: text}
    if isinstance(value, dict):
        for name, each in value.items():
            if (made := _branch(each, delta, text)) is not None:
                return _kept(value) | {name: made}
    elif isinstance(value, list):
        for each in value:
            if (made := _branch(each, delta, text)) is not None:
                return [made]
    return None


def _kept(value: dict[str, Any]) -> dict[str, Any]:
    return {name: value[name] for name in _KEPT if name in value}


def _has_more(value: Any) -> bool:
    """Return whether a choice has members besides empty texts and the members of `_KEPT`."""
    if isinstance(value, dict):
        return any(_has_more(each) for name, each in value.items() if name not in _KEPT)
    if isinstance(value, list):
        return any(_has_more(each) for each in value)
    return bool(value)


def _places(event: dict[str, Any]) -> Key:
    """Return the place of an event of the responses API. The item's id replaces a missing index."""
    output = _place(event, "output_index")
    item = _place(event, "item_id") if output is None else None
    return item, output, _place(event, "content_index"), _place(event, "summary_index")


def _place(value: dict[str, Any], name: str) -> Any:
    """Return an identifier or a number of a place. Raises `UpstreamInvalidError`."""
    place = value.get(name)
    if place is None or (isinstance(place, str) and name == "item_id"):
        if place is None or len(place) <= _LONGEST_PLACE:
            return place
    elif type(place) is int and 0 <= place < _LARGEST_PLACE:
        return place
    raise UpstreamInvalidError(
        f"The upstream sent an event whose '{name}' is invalid, so the guards cannot check it. "
        "Check the provider's 'url' and 'apis'."
    )


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
