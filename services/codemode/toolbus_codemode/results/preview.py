"""Preview of a large result: its shape, sizes and first items."""

from itertools import islice
from typing import Any

import msgspec

MAX_MEMBERS = 30  # of an object
MAX_ITEMS = 3  # of a list, at the outermost level
MAX_PARTS = 300
DEEPEST = 3
LONGEST_TEXT = 80
LONGEST_ITEM = 600
LONGEST_SHAPE = 2_000


def preview(value: Any) -> str:
    """Return the shape and first items of a value, for a model that selects from it."""
    return "\n".join([_cut(shape(value), LONGEST_SHAPE), *_first(value)])


def shape(value: Any) -> str:
    """Return a value's type with sizes: `list of 5,000 {id: int, name: str}`."""
    return _Shaping().of(value, 0)


class _Shaping:
    """Builder of a shape of limited length for a value of any size."""

    def __init__(self) -> None:
        self.left = MAX_PARTS

    def of(self, value: Any, depth: int) -> str:
        """Return the shape of a value at this depth."""
        self.left -= 1
        if isinstance(value, str):
            return f"str of {len(value):,} characters" if len(value) > LONGEST_TEXT else "str"
        if isinstance(value, list):
            return self._list(value, depth)
        if isinstance(value, dict):
            return self._dict(value, depth)
        return "None" if value is None else type(value).__name__

    def _list(self, value: list[Any], depth: int) -> str:
        if not value or depth > DEEPEST or self.left <= 0:
            return f"list of {len(value):,}"
        kinds = dict.fromkeys(self.of(each, depth + 1) for each in value[:MAX_ITEMS])
        return f"list of {len(value):,} {' | '.join(kinds)}"

    def _dict(self, value: dict[str, Any], depth: int) -> str:
        if depth > DEEPEST or self.left <= 0:
            return f"dict of {len(value):,}"
        members = [
            f"{_cut(name, LONGEST_TEXT)}: {self.of(each, depth + 1)}"
            for name, each in islice(value.items(), MAX_MEMBERS)
        ]
        more = len(value) - len(members)
        return "{" + ", ".join([*members, *([f"… {more:,} more"] if more else [])]) + "}"


def _first(value: Any) -> list[str]:
    """Return the first items of a list or of an object's longest list, else the first text."""
    if isinstance(value, str):
        return [_cut(value, LONGEST_ITEM)]
    if isinstance(value, dict):
        lists = {name: each for name, each in value.items() if isinstance(each, list) and each}
        if not lists:
            return [_cut(_json(value), LONGEST_ITEM)]
        name = max(lists, key=lambda each: len(lists[each]))
        return _items(lists[name], f"{_cut(name, LONGEST_TEXT)}: ")
    return _items(value, "") if isinstance(value, list) else []


def _items(items: list[Any], name: str) -> list[str]:
    return [
        f"{name}[{at}] {_cut(_json(each), LONGEST_ITEM)}"
        for at, each in enumerate(items[:MAX_ITEMS])
    ]


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _cut(text: str, maximum: int) -> str:
    return text if len(text) <= maximum else text[: maximum - 1] + "…"
