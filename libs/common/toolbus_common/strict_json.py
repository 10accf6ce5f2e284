"""Strict decoder of untrusted JSON (RFC 8259, I-JSON), with one error class.

It rejects input that two parsers could interpret differently: repeated names, NaN and Infinity,
invalid UTF-8 and lone surrogates. It also rejects input that is expensive to process: deep nesting,
and numbers with thousands of digits. The caller must limit the size of the text.
"""

import json
from typing import Any, TypeVar

import msgspec

MAX_DEPTH = 64

T = TypeVar("T")

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class StrictJSONError(ValueError):
    """The text is not strict JSON. The message is the reason."""


def parse(text: bytes) -> Any:
    """Parse one document. Raises `StrictJSONError`: malformed, repeated names, NaN, or too deep.

    A document that is encoded to the same bytes again cannot have a repeated name. Compact
    documents, and those with Python's usual blanks, are verified in this way at C speed. Any other
    document is parsed again, slowly.
    """
    try:
        value = _decode(text)
        if text.count(b"{") + text.count(b"[") > MAX_DEPTH:
            _check_depth(value)
        compact = _encode(value)
        if compact != text and msgspec.json.format(compact, indent=0) != text:
            _pairs.decode(text.decode())  # raises for repeated names
    except StrictJSONError:
        raise
    except UnicodeDecodeError as error:
        raise StrictJSONError("not UTF-8") from error
    except ValueError as error:
        raise StrictJSONError(f"not JSON: {error}") from error
    except RecursionError as error:
        raise StrictJSONError(f"nested deeper than {MAX_DEPTH}") from error
    return value


def typed(text: bytes | str, kind: type[T]) -> T:
    """Return the value of one document as `kind`.

    Raises `StrictJSONError`, also if the value has another type.
    """
    try:
        return msgspec.convert(parse(text.encode() if isinstance(text, str) else text), kind)
    except msgspec.ValidationError as error:
        raise StrictJSONError(f"does not have the expected form: {error}") from error
    except UnicodeEncodeError as error:
        raise StrictJSONError("not UTF-8") from error


def members(text: bytes | str) -> dict[str, Any]:
    """Return the value of one document that is an object.

    Raises `StrictJSONError`, also if the value is not an object.
    """
    return typed(text, dict[str, Any])


def dump(value: Any) -> bytes:
    """Return compact JSON. Use it to forward the parsed value instead of the received bytes."""
    return _encode(value)


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise StrictJSONError(f"nested deeper than {MAX_DEPTH}")
        level = [
            inner for item in level for inner in (item.values() if isinstance(item, dict) else item)
        ]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise StrictJSONError(f"the name {name[:64]!r} is repeated in one object")
        found[name] = value
    return found


def _reject_constant(name: str) -> None:
    raise StrictJSONError(f"{name} is not JSON")


_pairs = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_reject_constant)
