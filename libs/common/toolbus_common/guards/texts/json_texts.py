"""The texts of a JSON document: its strings, numbers and names of members (no I/O)."""

from collections.abc import Callable
from typing import Any

import msgspec

from toolbus_common import strict_json
from toolbus_common.strict_json import StrictJSONError

DEEPEST = 64


class TooDeepError(ValueError):
    """The document has more nested levels than guards check."""


class CollisionError(ValueError):
    """A replacement would give two members of an object the same name."""


class JsonTexts:
    """The strings of a JSON document, in order, each of which can be replaced.

    Names of members and numbers are texts too, because secrets and personal data can be in them.
    The values of the members in `except_fields` are left out.
    """

    def __init__(
        self,
        body: bytes,
        except_fields: frozenset[str] = frozenset(),
        value: Any = msgspec.UNSET,
    ) -> None:
        """Parse a document, unless `value` is its parsed form.

        Raises `ValueError`: not JSON, repeated names, or too deep (`TooDeepError`).
        """
        if value is msgspec.UNSET:
            value = parsed(body)
        self.value = value
        self._except = except_fields
        self.texts: list[str] = []
        self._collect(value, DEEPEST)

    def replaced(self, replace: Callable[[int, str], str]) -> bytes:
        """Return the document with each text replaced by `replace(index, text)`.

        A number whose text changes becomes a string. Raises `CollisionError`.
        """
        return msgspec.json.encode(self.renewed(replace))

    def renewed(self, replace: Callable[[int, str], str]) -> Any:
        """Return the parsed form of the document with each text replaced. Raises like `replaced`.

        Parts without a changed text are the same objects as before.
        """
        return _Renewal(replace, self._except).of(self.value)

    def _collect(self, value: Any, depth: int) -> None:
        """Append the texts of a value."""
        add = self.texts.append
        if depth < 0:
            raise TooDeepError("The document is nested too deeply for its guards.")
        if isinstance(value, str):
            add(value)
        elif isinstance(value, dict):
            for name, each in value.items():
                add(name)
                if name not in self._except:
                    if isinstance(each, str):
                        add(each)
                    else:
                        self._collect(each, depth - 1)
        elif isinstance(value, list):
            for each in value:
                if isinstance(each, str):
                    add(each)
                else:
                    self._collect(each, depth - 1)
        elif is_number(value):
            add(str(value))


class _Renewal:
    """Replacement of the texts of one document, in the order in which they are collected."""

    def __init__(self, replace: Callable[[int, str], str], except_fields: frozenset[str]) -> None:
        self._replace = replace
        self._except = except_fields
        self._next = 0

    def of(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            return self._object(value)
        if isinstance(value, list):
            return [self.of(each) for each in value]
        if is_number(value):
            number = str(value)
            text = self._text(number)
            return value if text == number else text
        return value

    def _object(self, value: dict[str, Any]) -> dict[str, Any]:
        renewed: dict[str, Any] = {}
        for name, each in value.items():
            renamed = self._text(name)
            if renamed in renewed:
                raise CollisionError("A redaction would give two members the same name.")
            renewed[renamed] = each if name in self._except else self.of(each)
        return renewed

    def _text(self, text: str) -> str:
        index, self._next = self._next, self._next + 1
        return self._replace(index, text)


def parsed(body: bytes) -> Any:
    """Return the parsed form of a document; None for an empty one. Raises `ValueError`.

    A document that two parsers could read differently is rejected: a guard would check one reading,
    and the receiver could use the other.
    """
    try:
        return strict_json.parse(body) if body else None
    except StrictJSONError as error:
        if "deeper" in str(error):
            raise TooDeepError("The document is nested too deeply for its guards.") from error
        # The reason of the parser can contain a part of the content.
        raise ValueError("The content is not a JSON document that guards can check.") from None


def is_number(value: Any) -> bool:
    """Return whether a JSON value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)
