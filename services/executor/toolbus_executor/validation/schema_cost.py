"""Upper bound of the cost of validation with a schema, computed before the schema is compiled."""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

LARGEST_WEIGHT = 20_000  # subschemas; each reference counts its target again
MAX_PATTERNS = 64
DEEPEST = 100
MAX_VISITS = 500_000  # visits of one validation, which take about 15 ms
MAX_DESCRIBED = 20_000  # visits up to which all errors are collected
MAX_COPIED = 8 * 1024 * 1024  # bytes, because each error contains a copy of its value
BYTES_PER_VISIT = 16  # a pattern reads this many bytes at the cost of one visit
_UNEVALUATED = ("unevaluatedProperties", "unevaluatedItems")
_ALIEN = ("$dynamicRef", "$recursiveRef", "$vocabulary")
_INDEX = re.compile(r"\d{1,6}")


class UnboundedError(Exception):
    """The schema cannot be used for validation. The text is the reason."""


class DanglingReferenceError(UnboundedError):
    """A reference of the schema has no target, so the schema cannot be compiled."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Upper bounds of the cost of validation with one schema."""

    weight: int
    patterns: int
    returns: int  # number of recursive references

    def visits(self, raw: bytes) -> int:
        """Return the maximum number of subschemas that the validation of this JSON value visits."""
        nodes = 1 + raw.count(b",") + raw.count(b"{") + raw.count(b"[")
        return self.weight * nodes + self.patterns * len(raw) // BYTES_PER_VISIT

    def describable(self, raw: bytes) -> bool:
        """Return whether collecting all errors is cheap.

        Collecting errors costs more than checking whether the value is valid, because parts are
        validated repeatedly.
        """
        maximum = self.visits(raw)
        if self.returns > 1:
            maximum *= self.returns ** min(DEEPEST, raw.count(b"{") + raw.count(b"["))
        return maximum <= MAX_DESCRIBED and self.weight * len(raw) <= MAX_COPIED


def bounds_of(schema: dict[str, Any]) -> Bounds:
    """Return upper bounds of the cost of validation with a schema.

    Raises:
        UnboundedError: the schema is too large, or contains a reference to another document.

    """
    scale = _Scale(schema)
    weight, returns = scale.weigh(schema)
    if weight > LARGEST_WEIGHT:
        raise UnboundedError("its schema is too large after its references are resolved")
    if scale.patterns > MAX_PATTERNS:
        raise UnboundedError(f"its schema has more than {MAX_PATTERNS} patterns")
    return Bounds(weight, scale.patterns, returns)


class _Scale:
    """Computation of the weights of all parts of a schema. Each part is weighed once."""

    def __init__(self, root: dict[str, Any]) -> None:
        self.patterns = 0
        self._root = root
        self._known: dict[int, tuple[int, int] | None] = {}  # None while it is being weighed

    def weigh(self, part: Any, depth: int = 0) -> tuple[int, int]:
        """Return the weight of a part of the schema, and its number of recursive references."""
        if not isinstance(part, dict | list):
            return 1, 0
        if depth > DEEPEST:
            raise UnboundedError(f"its schema is nested deeper than {DEEPEST}")
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
        """Count the patterns of a part.

        Return the weight of the target of its reference, if it has one.
        """
        if any(isinstance(part.get(name), str) for name in _ALIEN):
            raise UnboundedError("its schema has dynamic references")
        if depth and isinstance(part.get("$id"), str):
            raise UnboundedError("its schema has a subschema with an $id")
        self.patterns += isinstance(part.get("pattern"), str)
        named = part.get("patternProperties")
        self.patterns += len(named) if isinstance(named, dict) else 0
        reference = part.get("$ref")
        if not isinstance(reference, str):
            return []
        return [self.weigh(self._at(reference), depth + 1)]

    def _at(self, reference: str) -> Any:
        if not reference.startswith("#"):
            raise DanglingReferenceError("its schema has a reference without a target")
        if reference != "#" and not reference.startswith("#/"):
            raise UnboundedError("its schema has a reference without a target")
        found = resolved(self._root, reference)
        if found is None:
            raise DanglingReferenceError("its schema has a reference without a target")
        return found


def _slowness(part: dict[str, Any]) -> int:
    """Return the factor by which a part costs more than the sum of its contents."""
    times = 30 if part.get("uniqueItems") is True else 1
    for name in _UNEVALUATED:
        times *= 1 if part.get(name, True) is True else 3
    return times


def resolved(root: Any, reference: str) -> Any:
    """Return the target of a JSON pointer of the form `#/…`; None if it does not exist."""
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
