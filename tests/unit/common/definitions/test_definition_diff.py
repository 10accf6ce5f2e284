"""Differences between two definitions: every one is shown, none can be forged."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from toolbus_common.definitions.definition_diff import Difference, differences


def lines(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [line for each in differences(old, new) for line in each.lines()]


def test_every_changed_field_is_shown_with_both_values() -> None:
    old = {"name": "a", "inputSchema": {"type": "object", "properties": {"x.y": {"minimum": 1}}}}
    new = {"name": "a", "inputSchema": {"type": "object", "properties": {"x.y": {"minimum": "1"}}}}
    path = 'inputSchema.properties."x.y".minimum'
    assert lines(old, new) == [f"~ {path}", "    - 1", '    + "1"']


def test_added_and_removed_fields_are_shown_whole() -> None:
    assert lines({"title": "T"}, {"_meta": {"k": [1, 2]}}) == [
        "+ _meta.k", "    + [1, 2]", "- title", '    - "T"',
    ]  # fmt: skip


def test_only_the_changed_words_of_a_long_text_are_shown() -> None:
    long = " ".join(f"word{n}" for n in range(200))
    result = lines({"d": long}, {"d": long.replace("word100 ", "word100 and\u200b sends it away ")})
    assert "    + and⟨U+200B ZERO WIDTH SPACE⟩ sends it away " in [
        line.replace("+  ", "+ ") for line in result
    ]
    assert any("unchanged characters" in line for line in result)
    assert len(result) < 12


def test_an_invisible_change_is_shown() -> None:
    (_, was, now) = lines({"d": "Searches."}, {"d": "Searches.\u200b"})
    assert was.strip() == '- "Searches."'
    assert now.strip() == '+ "Searches.⟨U+200B ZERO WIDTH SPACE⟩"'


def test_a_text_cannot_forge_lines_of_the_diff() -> None:
    forged = "x" * 90 + "\n- removed\n\x1b[2J+ nothing else"
    result = Difference("+", "d", after=forged).lines()
    assert all(line.startswith("    + ") for line in result[1:])
    assert not any("\x1b" in line or "\n" in line for line in result)


def test_a_wrapped_line_keeps_its_mark() -> None:
    result = Difference("+", "d", after="x " * 5000).lines()
    assert all(line.startswith("    + ") and len(line) <= 110 for line in result[1:])


def test_two_very_long_texts_are_compared() -> None:
    old, new = ("".join(f"{c} {n % k} " for n in range(20_000)) for c, k in (("a", 97), ("b", 89)))
    assert lines({"d": old}, {"d": new})


DEFINITIONS = st.dictionaries(
    st.text(max_size=5),
    st.text(max_size=5) | st.integers() | st.dictionaries(st.text(max_size=3), st.text(max_size=3)),
    max_size=4,
)


@settings(deadline=None)
@given(DEFINITIONS, DEFINITIONS)
def test_different_definitions_always_have_a_difference(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    assert bool(differences(old, new)) == (old != new)
