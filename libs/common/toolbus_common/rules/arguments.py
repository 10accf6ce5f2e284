"""Conversion of a call's arguments to Cedar values.

Cedar cannot represent fractions, numbers beyond 64 bits, and null. Each of these values becomes the
record `{unrepresentable: "1.5"}`, which equals only the same record. Ordering such a record (`<`)
or matching it with a pattern is an evaluation error, so that a rule cannot ignore it. Arguments
that are too large, too deep or use a reserved name are rejected as a whole.
"""

from typing import Any

import msgspec

MAX_BYTES = 256 * 1024
MAX_DEPTH = 24
MARK = "unrepresentable"
_MIN_LONG, _MAX_LONG = -(2**63), 2**63 - 1
# In Cedar's JSON form, an object with one of these members is not a record.
_RESERVED = frozenset({"__entity", "__extn", "__expr"})

_decode = msgspec.json.Decoder().decode


class UnreadableError(ValueError):
    """The arguments cannot be evaluated. The message is the reason; it contains no argument."""


def readable(arguments: bytes, names: frozenset[str] | None) -> dict[str, Any]:
    """Return the arguments with these names as Cedar values; None means all arguments.

    Raises `UnreadableError`.
    """
    if len(arguments) > MAX_BYTES:
        raise UnreadableError(f"the arguments are larger than {MAX_BYTES >> 10} KiB")
    try:
        data = _decode(arguments)
    except (ValueError, RecursionError) as error:
        raise UnreadableError("the arguments are not valid JSON") from error
    if not isinstance(data, dict):
        raise UnreadableError("the arguments are not a JSON object")
    if names is not None:
        data = {name: data[name] for name in names if name in data}
    return _record(data, 0)


def _carried(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind is str or kind is bool:
        return value
    if kind is dict:
        return _record(value, depth + 1)
    if kind is list:
        _check(depth)
        return [_carried(each, depth + 1) for each in value]
    return _number(value)


def _record(value: dict[str, Any], depth: int) -> dict[str, Any]:
    _check(depth)
    if not _RESERVED.isdisjoint(value):
        raise UnreadableError("an argument has a name that is reserved in Cedar")
    return {name: _carried(each, depth) for name, each in value.items()}


def _check(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise UnreadableError(f"the arguments are nested deeper than {MAX_DEPTH}")


def _number(value: float | None) -> Any:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and _MIN_LONG <= value <= _MAX_LONG:
        return value
    return {MARK: "null" if value is None else repr(value)}
