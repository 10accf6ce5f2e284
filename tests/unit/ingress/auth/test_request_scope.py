"""What a request asks to be kept within: read from its headers, within bounds."""

import pytest

from toolbus_common.errors import InvalidError
from toolbus_common.mcp.builtin_server import Mode
from toolbus_common.mcp.code_mode_options import NO_OPTIONS, CodeModeOptions
from toolbus_ingress.auth.request_scope import (
    MAX_PATTERNS,
    PROGRAM,
    code_mode_options_of,
    model_restrictions_of,
    restrictions_of,
)


def test_without_headers_the_scope_is_unrestricted() -> None:
    assert restrictions_of({}) == ()


def test_servers_and_tools_both_restrict() -> None:
    headers = {b"x-toolbus-servers": b"docs, git", b"x-toolbus-tools": b"docs__*,git__log"}
    assert restrictions_of(headers) == (("docs__*", "git__*"), ("docs__*", "git__log"))


def test_models_have_a_header_of_their_own() -> None:
    headers = {b"x-toolbus-models": b"fast, local/*", b"x-toolbus-tools": b"docs__*"}
    assert model_restrictions_of(headers) == (("fast", "local/*"),)
    assert restrictions_of(headers) == (("docs__*",),)
    assert model_restrictions_of({b"x-toolbus-servers": b"docs"}) == ()


def test_an_empty_list_allows_nothing() -> None:
    assert restrictions_of({b"x-toolbus-tools": b""}) == ((),)
    assert model_restrictions_of({b"x-toolbus-models": b""}) == ((),)


@pytest.mark.parametrize("value", [b",".join([b"a"] * (MAX_PATTERNS + 1)), b"a" * 300])
def test_oversized_restrictions_are_rejected(value: bytes) -> None:
    with pytest.raises(InvalidError):
        restrictions_of({b"x-toolbus-tools": value})


def test_a_request_can_lower_the_limits_of_programs() -> None:
    value = code_mode_options_of({PROGRAM: b"usd=0.10, calls=5 ,seconds=2.5"}, Mode.CODE)
    assert value == CodeModeOptions(Mode.CODE, usd=0.1, calls=5, seconds=2.5)
    assert code_mode_options_of({}, Mode.TOOLS) is NO_OPTIONS
    assert code_mode_options_of({}, Mode.SEARCH) == CodeModeOptions(Mode.SEARCH)


@pytest.mark.parametrize(
    "header", ["", "usd", "usd=-1", "usd=nan", "usd=1e9", "calls=1.5", "calls=1,calls=2", "tools=1",
             "usd=0.1;calls=1", "usd=" + "9" * 400],
)  # fmt: skip
def test_invalid_limits_are_rejected_not_ignored(header: str) -> None:
    with pytest.raises(InvalidError, match="Write it as"):
        code_mode_options_of({PROGRAM: header.encode()}, Mode.CODE)
