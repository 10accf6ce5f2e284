"""Classes of clients by capabilities. A server can list different tools for each (no I/O)."""

from functools import lru_cache
from itertools import combinations
from typing import Any

GROUPS = ("elicitation", "roots", "sampling")
NONE = ""  # the class of clients without these capabilities
ALL = "+".join(GROUPS)
CLASSES = tuple(
    "+".join(some) for many in range(len(GROUPS) + 1) for some in combinations(GROUPS, many)
)


def class_of(capabilities: Any) -> str:
    """Return the class of a client with these capabilities."""
    if not isinstance(capabilities, dict):
        return NONE
    return "+".join(each for each in GROUPS if isinstance(capabilities.get(each), dict))


@lru_cache(len(CLASSES))
def capabilities_of(name: str) -> dict[str, Any]:
    """Return all capabilities that the clients of a class can have."""
    every: dict[str, Any] = {
        "elicitation": {"form": {}, "url": {}},
        "roots": {},
        "sampling": {"tools": {}},
    }
    return {group: every[group] for group in name.split("+") if group}
