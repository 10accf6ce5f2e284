"""The texts in the response of a model, in the form of any API for clients (no I/O).

Identifiers, types, usage and encrypted or binary data are no texts: they are left out. The
arguments of a tool call are JSON, as a text or as an object; they are checked as JSON, so that an
escape sequence hides nothing.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from toolbus_common import strict_json

MAX_DEPTH = 64
# Members whose values are not written by the model, or cannot be changed.
_SKIPPED = frozenset(
    {
        *("id", "object", "type", "model", "role", "created", "created_at", "completed_at"),
        *("finish_reason", "stop_reason", "status", "index", "system_fingerprint", "service_tier"),
        *("item_id", "response_id", "call_id", "tool_use_id", "previous_response_id"),
        *("output_index", "content_index", "summary_index", "sequence_number", "usage"),
        *("signature", "encrypted_content", "obfuscation", "b64_json", "partial_image_b64"),
        *("logprobs", "tools", "tool_choice", "max_output_tokens", "temperature", "top_p"),
    }
)
# Members that contain the arguments of a tool call: as an object, and as a text with JSON.
_OBJECTS, _ENCODED = frozenset({"input"}), frozenset({"arguments", "partial_json"})


class TextsOfResponse:
    """The texts of a decoded response, or of one event of its stream, as one JSON array."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.document: list[Any] = []
        self.was_ambiguous = False  # `value` is not what was received
        self._put: list[Callable[[Any], None]] = []
        self._visit(value, MAX_DEPTH)

    def replace(self, document: list[Any]) -> None:
        """Replace the texts by those of a document of the same length."""
        for put, before, after in zip(self._put, self.document, document, strict=True):
            if after != before:
                put(after)

    def drop_probabilities(self) -> None:
        """Remove the probabilities of tokens, which repeat the text token by token."""
        _without(self.value, "logprobs", MAX_DEPTH)

    def _visit(self, value: Any, depth: int) -> None:
        if depth < 0:
            raise ValueError("The response is nested too deeply for its guards.")
        if isinstance(value, dict):
            for name, each in list(value.items()):
                if name not in _SKIPPED:
                    self._member(value, name, each, depth)
        elif isinstance(value, list):
            for index, each in enumerate(value):
                if isinstance(each, str):
                    self._add(value, index, each)
                else:
                    self._visit(each, depth - 1)

    def _member(self, holder: dict[str, Any], name: str, each: Any, depth: int) -> None:
        if isinstance(each, str):
            if name in _ENCODED and (one := unambiguous(each)) is not each:
                holder[name] = each = one
                self.was_ambiguous = True
            arguments = decoded_arguments(each) if name in _ENCODED else None
            if arguments is not None:
                self.document.append(arguments)
                self._put.append(lambda new: holder.update({name: encoded_arguments(new)}))
            elif each:
                self._add(holder, name, each)
        elif name in _OBJECTS and isinstance(each, dict) and each:
            self._add(holder, name, each)
        elif isinstance(each, dict | list):
            self._visit(each, depth - 1)

    def _add(self, holder: Any, place: Any, value: Any) -> None:
        self.document.append(value)
        self._put.append(lambda new: holder.__setitem__(place, new))


def decoded_arguments(text: str) -> Any:
    """Return the arguments of a tool call; None if the text is no JSON object or array."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def unambiguous(text: str) -> str:
    """Return the arguments of a tool call so that all parsers read them alike.

    Of a repeated name, the last member stays: it is the one that is checked.
    """
    arguments = decoded_arguments(text)
    if arguments is None:
        return text
    try:
        strict_json.parse(text.encode("utf-8", "replace"))
    except strict_json.StrictJSONError:
        return encoded_arguments(arguments)
    return text


def encoded_arguments(arguments: Any) -> str:
    """Return the arguments of a tool call as a text."""
    return arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()


def _without(value: Any, name: str, depth: int) -> None:
    if depth < 0:
        return
    if isinstance(value, dict):
        if value.get(name) is not None:
            value[name] = [] if isinstance(value[name], list) else None
        for each in value.values():
            _without(each, name, depth - 1)
    elif isinstance(value, list):
        for each in value:
            _without(each, name, depth - 1)
