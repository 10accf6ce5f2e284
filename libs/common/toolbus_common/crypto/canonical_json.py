"""Canonical JSON and its SHA-256 digest: equal values have equal digests."""

from collections.abc import Iterator
from hashlib import sha256
from json import dumps
from math import isfinite
from typing import Any

DEEPEST = 64
LARGEST = 8 << 20  # bytes of the canonical form

_EXACT = 2**53  # a double represents every integer up to here exactly
_LONGEST_PLAIN = 21  # digits before the point; longer ones are written with an exponent
_MAX_ZEROS = 6  # between the point and the first digit


class UncanonicalError(ValueError):
    """The value is not JSON, or exceeds the limits."""


def digest_of(value: Any) -> str:
    """Return the SHA-256 of the canonical form in hex. Raises `UncanonicalError`."""
    return sha256(canonical(value)).hexdigest()


def canonical(value: Any) -> bytes:
    """Return the canonical form of a JSON value. Raises `UncanonicalError`.

    The form is that of RFC 8785, except that integers beyond the precision of a double keep all
    digits. Strings are not normalised: different texts that look alike stay different.
    """
    pieces: list[bytes] = []
    size = 0
    for text in _written(value, DEEPEST):
        piece = text.encode("utf-8", "surrogatepass")
        size += len(piece)
        if size > LARGEST:
            raise UncanonicalError(f"The value is longer than {LARGEST} bytes.")
        pieces.append(piece)
    return b"".join(pieces)


def _written(value: Any, depth: int) -> Iterator[str]:
    if depth < 0:
        raise UncanonicalError(f"The value is nested deeper than {DEEPEST} levels.")
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
        raise UncanonicalError("The name of a member is not a string.")
    opening = "{"
    for name in sorted(value, key=_in_order):
        yield f"{opening}{_text(name)}:"
        yield from _written(value[name], depth - 1)
        opening = ","
    yield "}" if value else "{}"


def _in_order(name: str) -> bytes:
    """Return the sort key of a member name: its UTF-16 code units (RFC 8785)."""
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
    raise UncanonicalError(f"JSON has no type '{type(value).__name__}'.")


def _text(value: str) -> str:
    return dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    """Return a number in the form of ECMAScript: the shortest digits that give the same double."""
    if not isfinite(value):
        raise UncanonicalError("JSON has no infinite or undefined number.")
    if value.is_integer() and abs(value) <= _EXACT:
        return str(int(value))
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = fraction if fraction != "0" else ""
    digits = (whole + fraction).lstrip("0")
    point = len(digits) - len(fraction) + int(exponent or 0)
    return ("-" if value < 0 else "") + _placed(digits.rstrip("0"), point)


def _placed(digits: str, point: int) -> str:
    """Return the digits with a decimal point, or with an exponent if that form is too long."""
    if len(digits) <= point <= _LONGEST_PLAIN:
        return digits.ljust(point, "0")
    if 0 < point <= _LONGEST_PLAIN:
        return f"{digits[:point]}.{digits[point:]}"
    if -_MAX_ZEROS < point <= 0:
        return f"0.{'0' * -point}{digits}"
    shown = f"{digits[0]}.{digits[1:]}" if len(digits) > 1 else digits
    return f"{shown}e{point - 1:+d}"
