"""The decoder of JSON that comes from outside (RFC 8259, I-JSON), with one error.

What two readers could read differently is refused: repeated names, NaN and Infinity, bytes that
are not UTF-8, lone surrogates; and so is what costs too much: deep nesting, numbers of thousands
of digits. How many bytes there may be is the caller's business, before it asks.
"""

import json
from typing import Any, TypeVar

import msgspec

DEEPEST = 64

T = TypeVar("T")

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class StrictJSONError(ValueError):
    """The text is not strict JSON; the message says what is wrong with it."""


def parse(text: bytes) -> Any:
    """Read one document. Raises `StrictJSONError`: malformed, repeated names, NaN, or too deep.

    A document that comes out of the encoder as it went in cannot have held a repeated name, so
    what most clients send is proven strict at C speed; anything else is read again, slowly.
    """
    try:
        value = _decode(text)
        if text.count(b"{") + text.count(b"[") > DEEPEST:
            _refuse_depth(value)
        if _encode(value) != text:
            _refuse_repeated_names(text)
    except StrictJSONError:
        raise
    except UnicodeDecodeError as error:
        raise StrictJSONError("not UTF-8") from error
    except ValueError as error:
        raise StrictJSONError(f"not JSON: {error}") from error
    except RecursionError as error:
        raise StrictJSONError(f"nested deeper than {DEEPEST}") from error
    return value


def typed(text: bytes | str, kind: type[T]) -> T:
    """Read one document of a type. Raises `StrictJSONError`, also where it is of another type."""
    try:
        return msgspec.convert(parse(text.encode() if isinstance(text, str) else text), kind)
    except msgspec.ValidationError as error:
        raise StrictJSONError(f"not as it must be: {error}") from error
    except UnicodeEncodeError as error:
        raise StrictJSONError("not UTF-8") from error


def members(text: bytes | str) -> dict[str, Any]:
    """Read one object. Raises `StrictJSONError`, also where it is none."""
    return typed(text, dict[str, Any])


def dump(value: Any) -> bytes:
    """The value as compact JSON: what goes on is what was understood, never the bytes received."""
    return _encode(value)


def _refuse_depth(value: Any) -> None:
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        if depth > DEEPEST:
            raise StrictJSONError(f"nested deeper than {DEEPEST}")
        level = [
            inner for item in level for inner in (item.values() if isinstance(item, dict) else item)
        ]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise StrictJSONError(f"the name {repeated[:64]!r} is repeated in one object")
    return found


def _refuse_constant(name: str) -> None:
    raise StrictJSONError(f"{name} is not JSON")


_pairs = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)


def _refuse_repeated_names(text: bytes) -> None:
    _pairs.decode(text.decode())
