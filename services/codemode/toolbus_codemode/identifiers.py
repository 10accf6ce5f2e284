"""What a program calls servers and tools: names that each lead back to one of them."""

from collections.abc import Iterable

from toolbus_codemode.sandbox.program import identifier


def distinct(names: Iterable[str]) -> dict[str, str]:
    """Identifier -> name, for names of one namespace; of equal ones the later is numbered."""
    found: dict[str, str] = {}
    for name in sorted(names):
        found[identifier(name, set(found))] = name
    return found
