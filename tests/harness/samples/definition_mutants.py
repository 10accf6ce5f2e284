"""Random mutations of definitions, of any member, character or type at any depth."""

import copy
import random
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

HIDDEN = "\u200b\u200d\u2060\u202e\u2066\u00ad\ufeff\ufe0f\U000e0041\U000e0100\x1b\x00\x7f\x9b"
ALIKE = {
    "a": "\u0430", "e": "\u0435", "o": "\u043e", "c": "\u0441", "p": "\u0440", "i": "\u0456",
    "s": "\u0455", "x": "\u0445", "y": "\u0443", "A": "\u0391", "B": "\u0392", "E": "\u0395",
    " ": "\u00a0", "-": "\u2010", ".": "\u2024", "l": "1", "1": "l", "O": "0", "_": "\uff3f",
}  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 1.5, 2**53 + 1, 10**40, "", " ", "x", [], {}, [[]], {"": {}},
)  # fmt: skip
Place = tuple[Any, Any]  # container of a value, and its key
Change = Callable[[Any, random.Random], Any]


def mutant(definition: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """Return a mutated definition that differs from the original as JSON."""
    while True:
        found: dict[str, Any] = copy.deepcopy(definition)
        for _ in range(chance.choice((1, 1, 1, 2, 5))):
            _change(found, chance)
        if chance.random() < 0.3:
            found = reordered(found, chance)
        if not same(found, definition):
            return found


def reordered(value: Any, chance: random.Random) -> Any:
    """Return an equal value whose members have another order."""
    if isinstance(value, dict):
        members = [(name, reordered(inner, chance)) for name, inner in value.items()]
        chance.shuffle(members)
        return dict(members)
    return [reordered(each, chance) for each in value] if isinstance(value, list) else value


def same(one: Any, other: Any) -> bool:
    """Return whether two JSON values are equal.

    True is not 1, and the order of members is ignored.
    """
    if isinstance(one, bool) or isinstance(other, bool) or one is None or other is None:
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    numbers = isinstance(one, int | float) and isinstance(other, int | float)
    return bool(one == other) if numbers or type(one) is type(other) else False


def _change(definition: dict[str, Any], chance: random.Random) -> None:
    """Apply one change at one position."""
    place = chance.choice(list(_places(definition)) or [(definition, None)])
    holder, at = place
    kind = chance.random()
    if at is None or kind < 0.12:
        _add(holder, chance)
    elif kind < 0.22:
        del holder[at]
    elif kind < 0.32 and isinstance(holder, dict):
        holder[_text(at, chance)] = holder.pop(at)
    elif kind < 0.40:
        holder[at] = _value(chance)
    elif kind < 0.45:
        holder[at] = chance.choice(([holder[at]], {"value": holder[at]}, str(holder[at])))
    else:
        holder[at] = _other(holder[at], chance)


def _places(value: Any) -> Iterator[Place]:
    members = value.items() if isinstance(value, dict) else enumerate(value)
    for at, inner in list(members):
        yield value, at
        if isinstance(inner, dict | list):
            yield from _places(inner)


def _add(holder: Any, chance: random.Random) -> None:
    value = _value(chance)
    if isinstance(holder, list):
        holder.insert(chance.randrange(len(holder) + 1), value)
    else:
        known = chance.choice([*holder, "x"])
        names = ("annotations", "_meta", "title", "icons", "outputSchema", _text(known, chance))
        holder[chance.choice(names)] = value


def _other(value: Any, chance: random.Random) -> Any:
    match value:
        case bool():
            return not value
        case str():
            return _text(value, chance)
        case int() | float():
            return chance.choice((value + 1, -value, value + 0.5, str(value), value * 10**20))
        case list() if len(value) > 1:
            return chance.sample(value, len(value))
        case list() | dict():
            return _value(chance)
    return _value(chance)


def _value(chance: random.Random) -> Any:
    """Return a new copy of one of the values. The copy can be mutated."""
    return copy.deepcopy(chance.choice(VALUES))


def _text(text: str, chance: random.Random) -> str:
    """Return the text with one character changed, added or removed."""
    at = chance.randrange(len(text) + 1)
    here, rest = text[at : at + 1], text[at + 1 :]
    return text[:at] + chance.choice(
        (
            chance.choice(HIDDEN) + here + rest,
            ALIKE.get(here, "\u0301" + here) + rest,
            chr(chance.randrange(32, 127)) + rest,
            here.swapcase() + rest,
            rest,
            here + here + rest,
            unicodedata.normalize("NFD", here) + " " + rest,
        )
    )
