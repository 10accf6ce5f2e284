"""The canonical form of a definition and its SHA-256: equal JSON values, equal digests."""

from collections.abc import Iterator
from hashlib import sha256
from json import dumps
from math import isfinite
from typing import Any

DEEPEST = 64
LARGEST = 8 << 20  # bytes of the canonical form

_EXACT = 2**53  # every whole number up to here is one double, and every such double one number
_LONGEST_PLAIN = 21  # digits before the point; longer ones are written with an exponent
_MOST_ZEROS = 6  # between the point and the first digit


class UncanonicalError(ValueError):
    """A value that JSON cannot hold, or beyond the bounds."""


def digest_of(value: Any) -> str:
    """SHA-256 in hex of the canonical form. Raises `UncanonicalError`."""
    return sha256(canonical(value)).hexdigest()


def canonical(value: Any) -> bytes:
    """The one way to write a JSON value. Raises `UncanonicalError`.

    As RFC 8785 has it, with one difference: whole numbers beyond what a double holds keep all
    their digits. Strings are not normalised: texts that look alike stay different.
    """
    pieces: list[bytes] = []
    size = 0
    for text in _written(value, DEEPEST):
        piece = text.encode("utf-8", "surrogatepass")
        size += len(piece)
        if size > LARGEST:
            raise UncanonicalError(f"It is longer than {LARGEST} bytes.")
        pieces.append(piece)
    return b"".join(pieces)


def _written(value: Any, depth: int) -> Iterator[str]:
    if depth < 0:
        raise UncanonicalError(f"It is nested deeper than {DEEPEST}.")
    if isinstance(value, dict):
        yield from _members(value, depth)
    elif isinstance(value, list | tuple):
        opening = "["
        for item in value:
            yield opening
            yield from _written(item, depth - 1)
            opening = ","
        yield "]" if value else "[]"
    else:
        yield _scalar(value)


def _members(value: dict[Any, Any], depth: int) -> Iterator[str]:
    if not all(isinstance(name, str) for name in value):
        raise UncanonicalError("A member's name is no text.")
    opening = "{"
    for name in sorted(value, key=_in_order):
        yield f"{opening}{_text(name)}:"
        yield from _written(value[name], depth - 1)
        opening = ","
    yield "}" if value else "{}"


def _in_order(name: str) -> bytes:
    """RFC 8785 sorts by UTF-16 code units; for ASCII that is the order of bytes."""
    return name.encode("utf-16-be", "surrogatepass")


def _scalar(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return _text(value)
        case int():
            return str(value)
        case float():
            return _number(value)
    raise UncanonicalError(f"JSON has no {type(value).__name__}.")


def _text(value: str) -> str:
    return dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    """As ECMAScript writes it: the shortest digits that mean the same double."""
    if not isfinite(value):
        raise UncanonicalError("JSON has no number without end.")
    if value.is_integer() and abs(value) <= _EXACT:
        return str(int(value))
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = fraction if fraction != "0" else ""
    digits = (whole + fraction).lstrip("0")
    point = len(digits) - len(fraction) + int(exponent or 0)
    return ("-" if value < 0 else "") + _placed(digits.rstrip("0"), point)


def _placed(digits: str, point: int) -> str:
    """Digits with the point after so many of them, plain where that is short."""
    if len(digits) <= point <= _LONGEST_PLAIN:
        return digits.ljust(point, "0")
    if 0 < point <= _LONGEST_PLAIN:
        return f"{digits[:point]}.{digits[point:]}"
    if -_MOST_ZEROS < point <= 0:
        return f"0.{'0' * -point}{digits}"
    shown = f"{digits[0]}.{digits[1:]}" if len(digits) > 1 else digits
    return f"{shown}e{point - 1:+d}"
