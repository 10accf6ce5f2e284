"""Names agents see: aliases, hidden tools, long names, and names that look alike."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.builders.configurations import listing_of
from toolbus_common.access.tool_names import LONGEST, Names
from toolbus_common.config import Server, ToolView
from toolbus_common.confusables import skeleton


def servers(**tools: dict[str, Any]) -> dict[str, Server]:
    return {
        name: Server.model_validate({"url": "http://h/mcp", "tools": views})
        for name, views in tools.items()
    }


def full(names: Names, server: str, own: str) -> str:
    seen = names.shown("tools", server, own)
    return seen.full if seen else ""


def test_a_tools_name_has_its_server_as_prefix() -> None:
    names = Names([listing_of("git", "log")])
    assert full(names, "git", "log") == "git__log"
    assert names.meant("git__log") == ("git", "log")
    assert names.meant("log", at="git") == ("git", "log")


def test_an_alias_replaces_the_name_and_the_old_one_is_unknown() -> None:
    names = Names([listing_of("git", "git_log")], servers(git={"git_log": {"alias": "log"}}))
    assert full(names, "git", "git_log") == "git__log"
    assert names.meant("git__log") == ("git", "git_log")
    assert names.meant("git__git_log") == ("", "git__git_log")
    assert names.meant("log", at="git") == ("git", "git_log")
    assert names.meant("git_log", at="git") == ("", "git_log")


def test_two_tools_may_swap_their_names() -> None:
    views = {"a": {"alias": "b"}, "b": {"alias": "a"}}
    names = Names([listing_of("x", "a", "b")], servers(x=views))
    assert names.meant("x__a") == ("x", "b")
    assert names.meant("x__b") == ("x", "a")


def test_a_description_of_the_operator_is_kept_with_the_name() -> None:
    names = Names(
        [listing_of("git", "log")], servers(git={"log": {"description": "What happened"}})
    )
    seen = names.shown("tools", "git", "log")
    assert seen is not None
    assert (seen.bare, seen.description) == ("log", "What happened")


def test_a_hidden_tool_is_not_shown_and_its_name_is_free_for_an_alias() -> None:
    views = {"search": {"hidden": True}, "find": {"alias": "search"}}
    names = Names([listing_of("docs", "search", "find")], servers(docs=views))
    assert names.shown("tools", "docs", "search") is None
    assert names.meant("docs__search") == ("docs", "find")


def test_an_alias_of_a_tool_leaves_the_prompt_of_that_name_alone() -> None:
    listed = [listing_of("git", "log", prompts=("log",))]
    names = Names(listed, servers(git={"log": {"alias": "history"}}))
    assert names.meant("git__log", "prompts") == ("git", "log")
    assert names.meant("git__log", "tools") == ("", "git__log")


def test_an_unlisted_name_is_split_at_its_separator() -> None:
    assert Names().meant("git__log") == ("git", "log")
    assert Names().meant("log") == ("", "log")


def test_of_two_tools_that_look_alike_the_first_stays() -> None:
    names = Names([listing_of("docs", "list", "1ist", "Llst")])
    assert names.meant("docs__1ist") == ("docs", "1ist")
    assert names.meant("docs__list") == ("", "docs__list")
    assert names.shown("tools", "docs", "list") is None
    assert names.dropped["tools", "docs", "list"] == "its name list looks like 1ist"
    assert ("tools", "docs", "Llst") in names.dropped


def test_an_operators_alias_wins_over_a_name_it_looks_like() -> None:
    names = Names([listing_of("docs", "a", "find")], servers(docs={"find": {"alias": "A"}}))
    assert names.meant("docs__A") == ("docs", "find")
    assert names.meant("docs__a") == ("", "docs__a")


def test_an_alias_saves_a_tool_that_looks_like_another() -> None:
    views = {"get_1tem": {"alias": "get_first"}}
    names = Names([listing_of("docs", "get_1tem", "get_item")], servers(docs=views))
    assert names.dropped == {}
    assert names.meant("docs__get_item") == ("docs", "get_item")


def test_the_same_tool_of_two_servers_is_two_tools() -> None:
    names = Names([listing_of("git", "log"), listing_of("docs", "log")])
    assert names.dropped == names.crowded == {}
    assert full(names, "git", "log") != full(names, "docs", "log")


def test_servers_that_look_alike_conflict_only_at_a_shared_endpoint() -> None:
    names = Names([listing_of("git", "log"), listing_of("g1t", "log")])
    assert names.meant("g1t__log") == ("g1t", "log")
    assert names.meant("git__log") == ("", "git__log")
    assert names.meant("log", at="git") == ("git", "log")
    assert ("tools", "git", "log") in names.crowded


def test_the_order_of_listings_changes_nothing() -> None:
    listed = [listing_of("git", "log", "l0g"), listing_of("g1t", "log")]
    one, other = Names(listed), Names(reversed(listed))
    assert (one.dropped, one.crowded) == (other.dropped, other.crowded)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(("O0", "oO"), ("log", "LOG"), ("log", "l0g"), ("burn", "bum"), ("get-it", "get_it")),
        *(("Il1", "lll"), ("ﬁle", "file")),
    ],
)
def test_names_that_look_alike_have_one_skeleton(one: str, other: str) -> None:
    assert skeleton(one) == skeleton(other)


def test_distinct_names_have_distinct_skeletons() -> None:
    names = ["read_file", "read_files", "write_file", "page2", "page3"]
    assert len({*map(skeleton, names)}) == len(names)


@pytest.mark.parametrize("alias", ["a.b", "a b", "a__b", "x" * 65, "é"])
def test_an_alias_clients_cannot_use_is_rejected(alias: str) -> None:
    with pytest.raises(ValidationError, match="must be 1 to 64 letters"):
        ToolView(alias=alias)


@pytest.mark.parametrize(
    "views",
    [
        {"a": {"alias": "c"}, "b": {"alias": "c"}},
        {"a": {"alias": "b"}, "b": {"description": "B"}},
    ],
)
def test_two_tools_with_one_alias_are_rejected(views: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"a and b would both have the name"):
        servers(docs=views)


def test_a_hidden_tool_does_not_occupy_a_name() -> None:
    assert servers(docs={"a": {"alias": "b"}, "b": {"hidden": True}})


server_names = st.from_regex(r"[A-Za-z0-9](?:[A-Za-z0-9-]|_[A-Za-z0-9-]){0,15}", fullmatch=True)
tool_names = st.from_regex(r"[A-Za-z0-9_.-]{1,96}", fullmatch=True) | st.text(
    "0oOl1iIrnm_-.", min_size=1, max_size=4
)
aliases = st.from_regex(r"[A-Za-z0-9-]{1,64}", fullmatch=True)
views = st.builds(ToolView, alias=st.just("") | aliases, hidden=st.booleans())


@given(
    tools=st.dictionaries(server_names, st.sets(tool_names, max_size=6), max_size=4),
    seen_as=st.dictionaries(tool_names, views, max_size=4),
)
def test_shown_names_are_unique_short_and_resolvable(
    tools: dict[str, set[str]], seen_as: dict[str, ToolView]
) -> None:
    declared = {name: Server.model_construct(url="http://h", tools={**seen_as}) for name in tools}
    names = Names([listing_of(server, *sorted(own)) for server, own in tools.items()], declared)
    seen = [
        shown
        for server, owned in tools.items()
        for own in owned
        if (shown := names.shown("tools", server, own)) is not None
    ]
    listed = [shown for shown in seen if shown.full]
    assert len({skeleton(shown.full) for shown in listed}) == len(listed)
    for shown in listed:
        assert re.fullmatch(rf"[A-Za-z0-9_.-]{{1,{LONGEST}}}", shown.full)
        assert names.meant(shown.full) == (shown.server, shown.own)
    for shown in seen:
        assert names.meant(shown.bare, at=shown.server) == (shown.server, shown.own)
