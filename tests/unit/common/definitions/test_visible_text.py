"""Definitions as shown to a person: nothing hidden, nothing forged."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolbus_cli.commands import output
from toolbus_common.definitions.definition_diff import texts
from toolbus_common.definitions.visible_text import counted, escaped, revealed, visible

HOSTILE = {
    "\u200b": "⟨U+200B ZERO WIDTH SPACE⟩",
    "\u202e": "⟨U+202E RIGHT-TO-LEFT OVERRIDE⟩",
    "\u2066": "⟨U+2066 LEFT-TO-RIGHT ISOLATE⟩",
    "\x1b": "⟨U+001B ESCAPE⟩",
    "\x9b": "⟨U+009B CONTROL SEQUENCE INTRODUCER⟩",
    "\r": "⟨U+000D CARRIAGE RETURN⟩",
    "\b": "⟨U+0008 BACKSPACE⟩",
    "\U000e0041": "⟨U+E0041 TAG LATIN CAPITAL LETTER A⟩",
    "\ufe0f": "⟨U+FE0F VARIATION SELECTOR-16⟩",
    "\U000e0100": "⟨U+E0100 VARIATION SELECTOR-17⟩",
    "\u3164": "⟨U+3164 HANGUL FILLER⟩",
    "\u00ad": "⟨U+00AD SOFT HYPHEN⟩",
    "\u00a0": "⟨U+00A0 NO-BREAK SPACE⟩",
    "\u2028": "⟨U+2028 LINE SEPARATOR⟩",
    "\ue000": "⟨U+E000 PRIVATE USE⟩",
    "⟨": "⟨U+27E8 MATHEMATICAL LEFT ANGLE BRACKET⟩",
}


@pytest.mark.parametrize(("hidden", "named"), HOSTILE.items(), ids=ascii)
def test_an_invisible_character_is_named(hidden: str, named: str) -> None:
    assert visible(f"a{hidden}b") == revealed(f"a{hidden}b") == f"a{named}b"


@settings(deadline=None)
@given(st.text())
def test_no_control_character_is_left(text: str) -> None:
    for shown in (visible(text), revealed(text)):
        assert shown.isprintable(), ascii(shown)
    kept = {unicodedata.category(each) for each in escaped(text)} - {"Cc"}
    assert not kept & {"Cf", "Cs", "Co", "Zl", "Zp"}


@settings(deadline=None)
@given(st.text(), st.text())
def test_different_texts_are_shown_differently(one: str, other: str) -> None:
    assert (revealed(one) == revealed(other)) == (one == other)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("p\u0430ypal", "p⟨\u0430 U+0430 CYRILLIC SMALL LETTER A⟩ypal"),
        ("\uff41", "⟨\uff41 U+FF41 FULLWIDTH LATIN SMALL LETTER A⟩"),
        ("e\u0301", "e⟨\u0301 U+0301 COMBINING ACUTE ACCENT⟩"),
        ("a\u2010b", "a⟨\u2010 U+2010 HYPHEN⟩b"),
        ("d\u0131r", "d⟨\u0131 U+0131 LATIN SMALL LETTER DOTLESS I⟩r"),
    ],
)
def test_lookalike_letters_are_named(text: str, shown: str) -> None:
    assert revealed(text) == shown


def test_every_letter_of_a_fake_latin_word_is_named() -> None:
    assert revealed("\u0441\u043e\u0440\u0443").count("CYRILLIC") == 4


@pytest.mark.parametrize("text", ["Ищет в книгах", "Søker i bøker", "検索する", "Αναζητά βιβλία"])
def test_text_in_any_language_stays_readable(text: str) -> None:
    assert revealed(text) == text


def test_hidden_characters_are_counted_in_field_names_too() -> None:
    found = counted(texts({"a\u200b": ["\u200b\n", {"b": "\x1b"}]}))
    assert found == {"U+200B ZERO WIDTH SPACE": 2, "U+001B ESCAPE": 1}


def test_tables_and_json_contain_no_control_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    hostile = "".join(HOSTILE) + "[red]:bomb:"
    output.show_table(("tool", "what"), [(hostile, [hostile])], "")
    output.show_json({"description": hostile})
    written = capsys.readouterr().out
    assert not set(written) & (set(HOSTILE) - {"⟨"})
    assert "[red]:bomb:" in written
