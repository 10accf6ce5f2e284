"""Distribution of the tests of one run over its workers."""

import pytest

LONGEST_FIRST = ("e2e", "docs", "chaos", "integration", "conformance", "service")
STARVING = "chaos"  # uses every core: one worker runs all of it, one test after another
GATEWAY = "gateway"  # the session's fixture, used by many files


def position(item: pytest.Item) -> int:
    """Return a test's position in the order: long ones first."""
    kind = item.path.parent.name
    return LONGEST_FIRST.index(kind) if kind in LONGEST_FIRST else len(LONGEST_FIRST)


def group_of(item: pytest.Item) -> str:
    """Return the group of a test; tests of a group share fixtures and run on one worker."""
    kind, shared = item.path.parent.name, _shared(item)
    if kind == STARVING:
        return STARVING
    if kind in LONGEST_FIRST and not shared:
        return item.nodeid
    where = GATEWAY if GATEWAY in shared else f"{kind}/{item.path.name}"
    return " ".join([where, *_forms(item, shared)])


def _shared(item: pytest.Item) -> set[str]:
    """Return a test's shared fixtures, except the engines that every test may share."""
    known = item._fixtureinfo.name2fixturedefs if isinstance(item, pytest.Function) else {}
    scopes = {name: found[-1].scope for name, found in known.items() if not name.startswith("_")}
    return {name for name, scope in scopes.items() if scope == "module" or name == GATEWAY}


def _forms(item: pytest.Item, names: set[str]) -> list[str]:
    """Return the parameters of those fixtures."""
    callspec = getattr(item, "callspec", None)
    given = callspec.params if callspec else {}
    return [str(given[name]) for name in sorted(names & given.keys())]
