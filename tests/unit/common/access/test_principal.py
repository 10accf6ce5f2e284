"""A key with everything above it: grants intersect, denials win, nothing unknown opens anything."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.access.principal import NEVER, EffectiveGrants, Principal, exposed, principal_of
from toolbus_common.config import Configuration

SERVERS = {"docs": {"url": "http://docs.example"}, "git": {"url": "http://git.example"}}
FEW_PATTERNS = st.sampled_from(["*", "docs__*", "git__*", "docs__search", "*__log", "none__*"])
SOME_NAMES = ["docs__search", "docs__delete", "git__log", "git__push"]


def principal(key: dict[str, Any], **sections: Any) -> Principal:
    declared = Configuration.model_validate({"servers": SERVERS, "keys": {"bot": key}, **sections})
    return principal_of("bot", declared.keys["bot"], declared, exposed(declared))


def usable(found: Principal) -> list[str]:
    return [name for name in SOME_NAMES if found.bounds.cover(name)]


def test_a_key_without_grants_covers_nothing() -> None:
    assert usable(principal({})) == []


def test_patterns_and_groups_of_one_level_add_up() -> None:
    groups = {"readers": {"tools": ["git__log"]}}
    found = principal({"tools": ["docs__search"], "groups": ["readers"]}, groups=groups)
    assert usable(found) == ["docs__search", "git__log"]


def test_a_group_of_a_team_limits_its_keys() -> None:
    sections = {"groups": {"git": {"tools": ["git__*"]}}, "teams": {"ops": {"groups": ["git"]}}}
    found = principal({"tools": ["*__log", "docs__*"], "team": "ops"}, **sections)
    assert usable(found) == ["git__log"]


@pytest.mark.parametrize("level", ["keys", "teams", "users", "customers", "groups"])
def test_a_denial_wins_at_every_level(level: str) -> None:
    sections: dict[str, Any] = {
        "keys": {"bot": {"tools": ["*"], "team": "t", "user": "u", "groups": ["g"]}},
        "teams": {"t": {"customer": "c"}},
        "users": {"u": {"customer": "c"}},
        "customers": {"c": {}},
        "groups": {"g": {"tools": ["*"]}},
    }
    for entry in sections[level].values():
        entry["deny"] = ["git__push"]
    found = principal(sections["keys"]["bot"], **{k: v for k, v in sections.items() if k != "keys"})
    assert usable(found) == ["docs__search", "docs__delete", "git__log"]


@pytest.mark.parametrize("link", ["team", "user"])
def test_a_key_of_an_unknown_team_covers_nothing(link: str) -> None:
    assert usable(principal({"tools": ["*"], link: "gone"})) == []


def test_a_key_of_an_unknown_customer_covers_nothing() -> None:
    assert usable(principal({"tools": ["*"], "team": "t"}, teams={"t": {"customer": "gone"}})) == []


def test_a_key_of_two_customers_covers_nothing() -> None:
    sections = {
        "customers": {"a": {}, "b": {}},
        "teams": {"t": {"customer": "a"}},
        "users": {"u": {"customer": "b"}},
    }
    assert usable(principal({"tools": ["*"], "team": "t", "user": "u"}, **sections)) == []


def test_a_missing_group_grants_nothing() -> None:
    assert usable(principal({"groups": ["gone"]})) == []
    assert usable(principal({"tools": ["*"], "team": "t"}, teams={"t": {"groups": ["gone"]}})) == []


def test_a_user_pays_like_a_team() -> None:
    sections = {"customers": {"acme": {}}, "users": {"ann": {"customer": "acme"}}}
    found = principal({"user": "ann"}, **sections)
    assert found.customer == "acme"
    assert [name for name, _ in found.levels] == ["key:bot", "user:ann", "customer:acme"]


def test_the_first_level_to_expire_ends_the_key() -> None:
    teams = {"t": {"expires": "2027-01-01"}}
    found = principal({"team": "t", "expires": "2027-06-01"}, teams=teams)
    assert found.ends == datetime(2027, 1, 2, tzinfo=UTC).timestamp()
    assert principal({}).ends == NEVER


def test_a_tool_the_server_does_not_expose_is_not_covered() -> None:
    servers = {**SERVERS, "docs": {"url": "http://docs.example", "expose": ["search"]}}
    assert usable(principal({"tools": ["*"]}, servers=servers)) == [
        "docs__search",
        "git__log",
        "git__push",
    ]


def test_content_is_recorded_unless_a_level_forbids_it() -> None:
    assert principal({}).content == "digest"
    assert principal({"content": "full"}).content == "full"
    teams = {"t": {"content": "digest"}}
    assert principal({"content": "full", "team": "t"}, teams=teams).content == "digest"


def test_the_nearest_environment_applies() -> None:
    teams = {"t": {"environment": "staging"}}
    assert principal({"team": "t"}, teams=teams).environment == "staging"
    assert principal({"team": "t", "environment": "dev"}, teams=teams).environment == "dev"


def test_a_level_that_requires_approval_is_named() -> None:
    found = principal({"team": "t"}, teams={"t": {"approve": ["git__push"]}})
    assert found.covering("git__push") == "team:t"
    assert found.covering("git__log") == ""


@given(
    st.lists(st.lists(FEW_PATTERNS, max_size=3).map(tuple), max_size=3).map(tuple),
    st.lists(FEW_PATTERNS, max_size=2).map(tuple),
    st.lists(st.lists(FEW_PATTERNS, max_size=3).map(tuple), max_size=3),
)
def test_narrowing_only_removes_grants(
    grants: tuple[tuple[str, ...], ...],
    denials: tuple[str, ...],
    restriction: list[tuple[str, ...]],
) -> None:
    wide = EffectiveGrants(grants, denials)
    narrow = wide.narrowed(restriction)
    for name in SOME_NAMES:
        assert wide.cover(name) or not narrow.cover(name)


def test_a_group_with_denials_only_limits_nothing_else() -> None:
    sections = {"groups": {"g": {"deny": ["git__push"]}}, "teams": {"t": {"groups": ["g"]}}}
    assert "docs__search" in usable(principal({"tools": ["*"], "team": "t"}, **sections))
