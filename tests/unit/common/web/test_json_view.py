"""JSON for reviewers: no invisible character is left unseen."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.web.json_view import readable, visible


@given(st.text())
def test_no_invisible_character_is_left(text: str) -> None:
    for each in visible(text):
        assert each == " " or unicodedata.category(each)[0] not in "CZ"


@given(st.text(alphabet=st.characters(categories=("L", "N", "P", "S"))))
def test_visible_text_stays_unchanged(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u202eb", "a\\u{202e}b"),
        ("a\u200bb", "a\\u{200b}b"),
        ("\x1b[2J", "\\u{001b}[2J"),
        ("a\u00a0b", "a\\u{00a0}b"),
        ("a\U000e0041", "a\\u{e0041}"),
    ],
)
def test_an_invisible_character_is_spelled_out(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_json_is_indented_and_its_numbers_stay_unchanged() -> None:
    raw = '{"n":1.10,"big":123456789012345678901234567890}'
    assert readable(raw).split("\n") == [
        "{", '  "n": 1.10,', '  "big": 123456789012345678901234567890', "}",
    ]  # fmt: skip


@pytest.mark.parametrize("raw", ["", '{"a": [1, 2', "\u202e{", '{"a":1}x'])
def test_malformed_json_is_shown_unchanged(raw: str) -> None:
    assert readable(raw) == visible(raw, keep="\n")


@given(st.recursive(st.none() | st.text() | st.integers(), st.lists))
def test_any_json_value_is_shown(value: object) -> None:
    assert "\u202e" not in readable(json.dumps(value, ensure_ascii=False))
