"""How much work a schema can make, known before anything is compiled: pure, and never too low."""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

LARGEST_WEIGHT = 20_000  # subschemas, each counted as often as references lead to it
MOST_PATTERNS = 64
DEEPEST = 100
MOST_VISITS = 500_000  # of one check: about 15 ms
MOST_DESCRIBED = 20_000  # visits after which nobody looks for what is wrong
MOST_COPIED = 8 * 1024 * 1024  # bytes: each fault that is found keeps a copy of its value
BYTES_PER_VISIT = 16  # that a pattern reads
_UNEVALUATED = ("unevaluatedProperties", "unevaluatedItems")
_ALIEN = ("$dynamicRef", "$recursiveRef", "$vocabulary")
_INDEX = re.compile(r"\d{1,6}")


class UnboundedError(Exception):
    """The schema is not used for checks; its text says why."""


class DanglingError(UnboundedError):
    """A reference leads to nothing that comes with the schema: nobody can compile it."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one value of an instance can cost at most, and where that grows with its depth."""

    weight: int
    patterns: int
    returns: int  # ways back to where the check has been, one level deeper; 0 if none

    def visits(self, raw: bytes) -> int:
        """The most a check of this JSON can visit."""
        nodes = 1 + raw.count(b",") + raw.count(b"{") + raw.count(b"[")
        return self.weight * nodes + self.patterns * len(raw) // BYTES_PER_VISIT

    def describable(self, raw: bytes) -> bool:
        """Whether looking for every fault is cheap: unlike a yes or no, it repeats itself."""
        most = self.visits(raw)
        if self.returns > 1:
            most *= self.returns ** min(DEEPEST, raw.count(b"{") + raw.count(b"["))
        return most <= MOST_DESCRIBED and self.weight * len(raw) <= MOST_COPIED


def bounds_of(schema: dict[str, Any]) -> Bounds:
    """The bounds of a schema, which is taken for larger than it is rather than for smaller.

    Raises:
        UnboundedError: it is too large, or refers to what is not in it.

    """
    scale = _Scale(schema)
    weight, returns = scale.weigh(schema)
    if weight > LARGEST_WEIGHT:
        raise UnboundedError("its schema is too large when its references are followed")
    if scale.patterns > MOST_PATTERNS:
        raise UnboundedError(f"its schema has more than {MOST_PATTERNS} patterns")
    return Bounds(weight, scale.patterns, returns)


class _Scale:
    """Weighs every part of a schema once. What is no subschema is taken for one."""

    def __init__(self, root: dict[str, Any]) -> None:
        self.patterns = 0
        self._root = root
        self._known: dict[int, tuple[int, int] | None] = {}  # None while it is being weighed

    def weigh(self, part: Any, depth: int = 0) -> tuple[int, int]:
        """Its weight, and how often it leads back to what it is part of."""
        if not isinstance(part, dict | list):
            return 1, 0
        if depth > DEEPEST:
            raise UnboundedError(f"its schema leads deeper than {DEEPEST}")
        if id(part) in self._known:
            return self._known[id(part)] or (1, 1)
        self._known[id(part)] = None
        inner = part.values() if isinstance(part, dict) else part
        found = [self.weigh(each, depth + 1) for each in inner]
        if isinstance(part, dict):
            found += self._special(part, depth)
        weight = 1 + sum(each for each, _ in found)
        weight *= _slowness(part) if isinstance(part, dict) else 1
        known = min(weight, LARGEST_WEIGHT + 1), min(sum(each for _, each in found), LARGEST_WEIGHT)
        self._known[id(part)] = known
        return known

    def _special(self, part: dict[str, Any], depth: int) -> list[tuple[int, int]]:
        """What a reference leads to. Patterns are counted on the way."""
        if any(isinstance(part.get(name), str) for name in _ALIEN):
            raise UnboundedError("its schema has references that depend on who follows them")
        if depth and isinstance(part.get("$id"), str):
            raise UnboundedError("its schema holds another one with an identity of its own")
        self.patterns += isinstance(part.get("pattern"), str)
        named = part.get("patternProperties")
        self.patterns += len(named) if isinstance(named, dict) else 0
        reference = part.get("$ref")
        if not isinstance(reference, str):
            return []
        return [self.weigh(self._at(reference), depth + 1)]

    def _at(self, reference: str) -> Any:
        if not reference.startswith("#"):
            raise DanglingError("its schema refers to what is not in it")
        if reference != "#" and not reference.startswith("#/"):
            raise UnboundedError("its schema refers to what is not in it")
        found = resolved(self._root, reference)
        if found is None:
            raise DanglingError("its schema refers to what it does not hold")
        return found


def _slowness(part: dict[str, Any]) -> int:
    """How much longer a part takes than the sum of what it holds."""
    times = 30 if part.get("uniqueItems") is True else 1
    for name in _UNEVALUATED:
        times *= 1 if part.get(name, True) is True else 3
    return times


def resolved(root: Any, reference: str) -> Any:
    """What a JSON pointer after `#` leads to; None where that is nothing."""
    found = root
    for step in reference[1:].split("/")[1:]:
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = found.get(name)
        elif isinstance(found, list) and _INDEX.fullmatch(name) and int(name) < len(found):
            found = found[int(name)]
        else:
            return None
    return found
