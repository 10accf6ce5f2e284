"""Identifiers of servers and tools in programs."""

from collections.abc import Collection, Iterable

from toolbus_codemode.sandbox.program import TAKEN, identifier

RESULTS = "results"  # namespace with the stored results of earlier programs
RESERVED = TAKEN | {RESULTS}  # identifiers that no server may have


def distinct(names: Iterable[str], taken: Collection[str] = ()) -> dict[str, str]:
    """Return the names of one namespace by distinct identifiers; duplicates get a number."""
    found: dict[str, str] = {}
    for name in sorted(names):
        found[identifier(name, {*taken, *found})] = name
    return found
