"""Deny by default: a pattern grants what it names and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.access.tool_patterns import full_name, granted, split_name

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9-]{0,10}", fullmatch=True)


@pytest.mark.parametrize(
    ("patterns", "name", "expected"),
    [
        ((), "git__git_log", False),
        (("git__git_log",), "git__git_log", True),
        (("git__git_log",), "git__git_log_all", False),
        (("git__git_log",), "xgit__git_log", False),
        (("git__*",), "git__git_log", True),
        (("git__*",), "github__search", False),
        (("*",), "git__git_log", True),
        (("*__read_*",), "notes__read_all", True),
        (("*__read_*",), "notes__write_all", False),
        (("git__git_lo?",), "git__git_log", True),
        (("a__x", "b__y"), "b__y", True),
        (("GIT__*",), "git__git_log", False),
        (("git__a.b",), "git__axb", False),
        (("git__*",), "git__with\nnewline", True),
    ],
)
def test_a_pattern_grants_what_it_names(
    patterns: tuple[str, ...], name: str, *, expected: bool
) -> None:
    assert granted(patterns, name) is expected


@given(name=st.text())
def test_no_pattern_grants_nothing(name: str) -> None:
    assert not granted((), name)


@given(server=names, tool=st.text(min_size=1, max_size=30))
def test_a_full_name_splits_into_server_and_tool(server: str, tool: str) -> None:
    assert split_name(full_name(server, tool)) == (server, tool)


def test_a_name_without_a_separator_has_no_server() -> None:
    assert split_name("search") == ("", "search")
