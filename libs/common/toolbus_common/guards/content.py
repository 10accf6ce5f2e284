"""The content that guards check: one document, decoded once for all guards (no I/O)."""

from typing import Any

import msgspec

from toolbus_common.guards.texts.json_texts import JsonTexts, parsed


class Content:
    """A JSON document, as bytes, as its parsed form, and as texts. Each is computed when needed."""

    def __init__(self, body: bytes | None, value: Any = msgspec.UNSET, size: int = 0) -> None:
        """Take a document as bytes, or its parsed form as `value` and its `size` in bytes."""
        self._body = body
        self._value = value
        self._texts: dict[frozenset[str], JsonTexts] = {}
        self.size = size if body is None else len(body)
        self.is_changed = False

    @property
    def body(self) -> bytes:
        """The document as bytes; unchanged if nothing was replaced."""
        if self._body is None:
            self._body = msgspec.json.encode(self._value)
        return self._body

    @property
    def is_encoded(self) -> bool:
        """Whether the encoded form of the document exists already."""
        return self._body is not None

    @property
    def value(self) -> Any:
        """The parsed form of the document. Raises `ValueError`."""
        if self._value is msgspec.UNSET:
            self._value = parsed(self.body)
        return self._value

    def texts(self, except_fields: frozenset[str]) -> JsonTexts:
        """Return the texts outside some members. Raises `ValueError`."""
        if except_fields not in self._texts:
            self._texts[except_fields] = JsonTexts(b"", except_fields, self.value)
        return self._texts[except_fields]

    def without(self, except_fields: frozenset[str]) -> bytes:
        """Return the document with null as the value of some members. Raises `ValueError`."""
        value = self.value  # raises if two parsers could read it differently
        return msgspec.json.encode(_masked(value, except_fields)) if except_fields else self.body

    def replace(self, value: Any) -> None:
        """Replace the document by another parsed form."""
        self._body, self._value, self._texts, self.is_changed = None, value, {}, True


def fields_put_back(body: bytes, original: Any, fields: frozenset[str]) -> Any:
    """Return the parsed form of a changed document, with some members as in the original.

    Raises `ValueError`: not JSON, or another type of document than the original.
    """
    value = parsed(body)
    if type(value) is not type(original):
        raise ValueError("the service returned another type of document as the redacted content")
    return _put_back(value, original, fields) if fields else value


def _masked(value: Any, fields: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {
            name: None if name in fields else _masked(each, fields) for name, each in value.items()
        }
    return [_masked(each, fields) for each in value] if isinstance(value, list) else value


def _put_back(value: Any, original: Any, fields: frozenset[str]) -> Any:
    if isinstance(value, dict) and isinstance(original, dict):
        return {
            name: original[name]
            if name in fields and name in original
            else _put_back(each, original.get(name), fields)
            for name, each in value.items()
        }
    if isinstance(value, list) and isinstance(original, list):
        pairs = zip(value, original, strict=False)
        rest = value[len(original) :]
        return [*(_put_back(each, before, fields) for each, before in pairs), *rest]
    return value
