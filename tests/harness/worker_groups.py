"""Distribution of the tests of one run to its workers."""

import pytest

LONGEST_FIRST = ("chaos", "e2e", "docs", "integration", "fuzz", "conformance", "service")
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
    where = GATEWAY if GATEWAY in shared else f"{kind}/{item.path.name}"
    return " ".join([where, *_forms(item, shared)])


def _shared(item: pytest.Item) -> set[str]:
    """Return the shared fixtures of a test, except for the engines that all tests can share."""
    known = item._fixtureinfo.name2fixturedefs if isinstance(item, pytest.Function) else {}
    scopes = {name: found[-1].scope for name, found in known.items() if not name.startswith("_")}
    return {name for name, scope in scopes.items() if scope == "module" or name == GATEWAY}


def _forms(item: pytest.Item, names: set[str]) -> list[str]:
    """Return the parameters of those fixtures."""
    callspec = getattr(item, "callspec", None)
    given = callspec.params if callspec else {}
    return [str(given[name]) for name in sorted(names & given.keys())]
