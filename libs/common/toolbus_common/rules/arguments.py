"""A call's arguments as Cedar can carry them: whole numbers, text, truth, sets and records.

What it has no form for (fractions, numbers beyond 64 bits, null) becomes the record
`{unrepresentable: "1.5"}`: equal only to itself, and a fault to any rule that compares it or
matches it with a pattern. So no rule overlooks it. What could be read two ways, or is too large
or too deep, cannot be carried at all.
"""

from typing import Any

import msgspec

MOST_BYTES = 256 * 1024
DEEPEST = 24
MARK = "unrepresentable"
_LEAST, _MOST = -(2**63), 2**63 - 1
# Cedar's JSON reads an object with one of these as something else than a record.
_RESERVED = frozenset({"__entity", "__extn", "__expr"})

_decode = msgspec.json.Decoder().decode


class UnreadableError(ValueError):
    """Arguments no rule can be asked about; the message says why, without quoting them."""


def readable(arguments: bytes, names: frozenset[str] | None) -> dict[str, Any]:
    """The arguments of these names, or all. Raises `UnreadableError`."""
    if len(arguments) > MOST_BYTES:
        raise UnreadableError(f"the arguments are larger than {MOST_BYTES >> 10} KiB")
    try:
        data = _decode(arguments)
    except (ValueError, RecursionError) as error:
        raise UnreadableError("the arguments cannot be read as JSON") from error
    if not isinstance(data, dict):
        raise UnreadableError("the arguments are not named")
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
        raise UnreadableError("an argument has a name that means something else to Cedar")
    return {name: _carried(each, depth) for name, each in value.items()}


def _check(depth: int) -> None:
    if depth > DEEPEST:
        raise UnreadableError(f"the arguments are nested deeper than {DEEPEST}")


def _number(value: float | None) -> Any:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and _LEAST <= value <= _MOST:
        return value
    return {MARK: "null" if value is None else repr(value)}
