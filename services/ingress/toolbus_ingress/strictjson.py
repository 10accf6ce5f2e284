"""Strict JSON (RFC 8259, I-JSON): what two readers could read differently is refused."""

import json
from typing import Any

import msgspec

DEEPEST = 64

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
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StrictJSONError(f"not JSON: {error}") from error
    except RecursionError as error:
        raise StrictJSONError(f"nested deeper than {DEEPEST}") from error
    return value


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
