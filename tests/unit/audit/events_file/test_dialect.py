"""Statements for ClickHouse, translated for SQLite."""

import pytest

from toolbus_audit.events_file.dialect import is_like, translated


def test_parameters_become_sqlites_with_typed_values() -> None:
    sql = "SELECT 1 WHERE {key:String} IN ('', key) AND seq > {seq:UInt64} AND c < {c:Float64}"
    found, values = translated(sql, {"key": "a'b", "seq": "7", "c": "0.5", "unused": "x"})
    assert found == "SELECT 1 WHERE :key IN ('', key) AND seq > :seq AND c < :c"
    assert values == {"key": "a'b", "seq": 7, "c": 0.5}


@pytest.mark.parametrize(
    ("literal", "expected"),
    [
        (r"'it\'s'", "'it''s'"),
        ("'it''s'", "'it''s'"),
        (r"'a\\'", "'a\\'"),
        (r"'\\\' OR 1 = 1 --'", "'\\'' OR 1 = 1 --'"),
        ("'{key:String}'", "'{key:String}'"),
    ],
)
def test_a_literal_keeps_its_meaning_and_never_ends_early(literal: str, expected: str) -> None:
    found, values = translated(f"SELECT {literal}", {"key": "x"})
    assert (found, values) == (f"SELECT {expected}", {})


@pytest.mark.parametrize(
    ("text", "pattern", "matches"),
    [
        ("call.denied", "call.%", True),
        ("Call.denied", "call.%", False),
        ("a_b", r"a\_b", True),
        ("axb", r"a\_b", False),
        ("axb", "a_b", True),
        ("a%", r"a\%", True),
        ("line\nline", "line%", True),
        ("call", "call.%", False),
        ("", "%", True),
    ],
)
def test_like_has_escapes_and_case_as_in_clickhouse(
    text: str, pattern: str, *, matches: bool
) -> None:
    assert is_like(text, pattern) is matches
