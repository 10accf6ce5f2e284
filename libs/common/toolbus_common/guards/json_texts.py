"""The texts of a JSON document: its strings and the names of its members (no I/O)."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

DEEPEST = 128


class TooDeepError(ValueError):
    """The document has more nested levels than guards check."""


class JsonTexts:
    """The strings of a JSON document, in order, each of which can be replaced.

    Names of members and numbers are texts too, because secrets and personal data can be in them.
    The values of the members in `except_fields` are left out.
    """

    def __init__(self, body: bytes, except_fields: frozenset[str] = frozenset()) -> None:
        """Parse a document. Raises `msgspec.DecodeError` or `TooDeepError`."""
        self._value = msgspec.json.decode(body) if body else None
        self._except = except_fields
        self.texts: list[str] = [*_texts_of(self._value, except_fields, DEEPEST)]

    def replaced(self, replace: Callable[[int, str], str]) -> bytes:
        """Return the document with each text replaced by `replace(index, text)`.

        A number whose text changes becomes a string.
        """
        counter = iter(range(len(self.texts)))

        def renew(value: Any) -> Any:
            if isinstance(value, str):
                return replace(next(counter), value)
            if isinstance(value, dict):
                return {
                    replace(next(counter), name): each if name in self._except else renew(each)
                    for name, each in value.items()
                }
            if isinstance(value, list):
                return [renew(each) for each in value]
            if isinstance(value, int | float) and not isinstance(value, bool):
                number = str(value)
                text = replace(next(counter), number)
                return value if text == number else text
            return value

        return msgspec.json.encode(renew(self._value))


def _texts_of(value: Any, except_fields: frozenset[str], depth: int) -> Iterator[str]:
    if depth < 0:
        raise TooDeepError("The document is nested too deeply for its guards.")
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, each in value.items():
            yield name
            if name not in except_fields:
                yield from _texts_of(each, except_fields, depth - 1)
    elif isinstance(value, list):
        for each in value:
            yield from _texts_of(each, except_fields, depth - 1)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)
