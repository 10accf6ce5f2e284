"""How the tests of one run are shared out among its workers."""

import pytest

LONGEST_FIRST = ("e2e", "docs", "chaos", "integration", "conformance", "service")
STARVING = "chaos"  # keeps every core busy: one worker has it all, one test after another
GATEWAY = "gateway"  # the session's, of many files


def standing(item: pytest.Item) -> int:
    """Where a test stands: all would wait for a long one that began last."""
    kind = item.path.parent.name
    return LONGEST_FIRST.index(kind) if kind in LONGEST_FIRST else len(LONGEST_FIRST)


def company(item: pytest.Item) -> str:
    """The tests that go to one worker have this in common: what they began, in the same form."""
    kind, shared = item.path.parent.name, _shared(item)
    if kind == STARVING:
        return STARVING
    if kind in LONGEST_FIRST and not shared:
        return item.nodeid
    where = GATEWAY if GATEWAY in shared else f"{kind}/{item.path.name}"
    return " ".join([where, *_forms(item, shared)])


def _shared(item: pytest.Item) -> set[str]:
    """The fixtures a test does not have to itself, but for the engines every test may share."""
    known = item._fixtureinfo.name2fixturedefs if isinstance(item, pytest.Function) else {}
    scopes = {name: found[-1].scope for name, found in known.items() if not name.startswith("_")}
    return {name for name, scope in scopes.items() if scope == "module" or name == GATEWAY}


def _forms(item: pytest.Item, names: set[str]) -> list[str]:
    """The forms in which a test wants those fixtures."""
    callspec = getattr(item, "callspec", None)
    given = callspec.params if callspec else {}
    return [str(given[name]) for name in sorted(names & given.keys())]
