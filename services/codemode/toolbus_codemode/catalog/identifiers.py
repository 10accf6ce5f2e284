"""What a program calls servers and tools: names that each lead back to one of them."""

from collections.abc import Collection, Iterable

from toolbus_codemode.sandbox.program import TAKEN, identifier

RESULTS = "results"  # where programs find what earlier ones left
RESERVED = TAKEN | {RESULTS}  # what a server may not be called in a program


def distinct(names: Iterable[str], taken: Collection[str] = ()) -> dict[str, str]:
    """Identifier -> name, for names of one namespace; of equal ones the later is numbered."""
    found: dict[str, str] = {}
    for name in sorted(names):
        found[identifier(name, {*taken, *found})] = name
    return found
