"""What a request asks to be kept within: read from its headers, within bounds."""

import pytest

from toolbus_common.errors import InvalidError
from toolbus_ingress.narrowing import MOST_PATTERNS, narrower_of


def test_without_headers_nothing_is_narrowed() -> None:
    assert narrower_of({}) == ()


def test_servers_and_tools_both_bound() -> None:
    headers = {b"x-toolbus-servers": b"docs, git", b"x-toolbus-tools": b"docs__*,git__log"}
    assert narrower_of(headers) == (("docs__*", "git__*"), ("docs__*", "git__log"))


def test_an_empty_list_leaves_nothing() -> None:
    assert narrower_of({b"x-toolbus-tools": b""}) == ((),)


@pytest.mark.parametrize("value", [b",".join([b"a"] * (MOST_PATTERNS + 1)), b"a" * 300])
def test_more_than_any_sense_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidError):
        narrower_of({b"x-toolbus-tools": value})
