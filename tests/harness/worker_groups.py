"""Distribution of the tests of one run to its workers."""

from collections.abc import Iterable

import pytest

LONGEST_FIRST = ("chaos", "docs", "e2e", "integration", "fuzz", "conformance", "service")
STARVING = "chaos"  # these tests use all cores, so one worker runs them sequentially
PARSING = "architecture"  # these tests share the parsed modules of the repository
GATEWAY = "gateway"  # fixture of the session that many files use


def position(item: pytest.Item) -> int:
    """Return the position of a test in the order. Long tests are first."""
    kind = item.path.parent.name
    return LONGEST_FIRST.index(kind) if kind in LONGEST_FIRST else len(LONGEST_FIRST)


def group_of(item: pytest.Item) -> str:
    """Return the group of a test. Tests of a group share fixtures, and run on one worker."""
    kind, shared = item.path.parent.name, _shared(item)
    if kind in (STARVING, PARSING):
        return kind
    if kind in LONGEST_FIRST and not shared:
        return item.nodeid
    where = GATEWAY if shared.get(GATEWAY) == "session" else f"{kind}/{item.path.name}"
    return " ".join([where, *_forms(item, shared)])


def _shared(item: pytest.Item) -> dict[str, str]:
    """Return the scopes of a test's shared fixtures, except for the engines that all can share."""
    known = item._fixtureinfo.name2fixturedefs if isinstance(item, pytest.Function) else {}
    scopes = {name: found[-1].scope for name, found in known.items() if not name.startswith("_")}
    return {
        name: scope
        for name, scope in scopes.items()
        if scope == "module" or (name == GATEWAY and scope == "session")
    }


def _forms(item: pytest.Item, names: Iterable[str]) -> list[str]:
    """Return the parameters of those fixtures."""
    callspec = getattr(item, "callspec", None)
    given = callspec.params if callspec else {}
    return [str(given[name]) for name in sorted(given.keys() & set(names))]
