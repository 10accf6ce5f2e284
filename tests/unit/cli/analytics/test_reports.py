"""Saved queries, times, and the report: parsing, binding, drawing."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from toolbus_cli.analytics.charts import by_name, over_time
from toolbus_cli.analytics.report_data import Report
from toolbus_cli.analytics.report_page import page
from toolbus_cli.commands.audit.reports import _show, queries
from toolbus_common.contracts.queries.sql_text import like
from toolbus_common.errors import InvalidError, UnknownEntryError
from toolbus_common.saved_queries import catalogue as saved
from toolbus_common.saved_queries.timestamps import moment, written

NOW = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
HEADER = "-- Callers.\n-- since: DateTime = 7d | from when\n-- least: UInt8 | minimum\nSELECT "
PARAMETERS = "{since:DateTime}, {least:UInt8}"


@pytest.mark.parametrize(
    ("entered", "expected"),
    [
        ("now", "2026-11-21 12:30:00"),
        ("30m", "2026-11-21 12:00:00"),
        ("24h", "2026-11-20 12:30:00"),
        ("2w", "2026-11-07 12:30:00"),
        ("2026-11-01", "2026-11-01 00:00:00"),
        ("2026-11-17T02:47", "2026-11-17 02:47:00"),
        ("2026-11-17T02:47+01:00", "2026-11-17 01:47:00"),
    ],
)
def test_a_time_is_parsed_from_common_forms(entered: str, expected: str) -> None:
    assert written(moment(entered, NOW)) == expected


@pytest.mark.parametrize("entered", ["", "yesterday", "-7d", "7", "999999w", "2026-13-01"])
def test_an_invalid_time_is_rejected(entered: str) -> None:
    with pytest.raises(InvalidError, match="is not a time"):
        moment(entered, NOW)


def test_every_packaged_query_has_a_description() -> None:
    questions = saved.known(None)
    assert {"who-called", "spend-by-team", "slowest-tools", "denials", "denied-rules", "approvals",
            "definition-changes", "context-cost", "unresolved-calls"} <= set(questions)  # fmt: skip
    assert all(query.about.endswith(".") for query in questions.values())


def test_parameters_are_bound_as_text_and_times_as_dates() -> None:
    query = saved.read("here", HEADER + PARAMETERS)
    assert query.bound({"least": "3; DROP"}, NOW) == {
        "since": "2026-11-14 12:30:00",
        "least": "3; DROP",
    }
    with pytest.raises(InvalidError, match="requires the parameter least"):
        query.bound({}, NOW)
    with pytest.raises(InvalidError, match="has no parameter 'other'"):
        query.bound({"least": "1", "other": "2"}, NOW)


@pytest.mark.parametrize(
    ("name", "text", "entered"),
    [
        ("here", "SELECT 1", "must begin"),
        ("here", HEADER + "1", "differ from those it uses"),
        ("here", "-- One.\nSELECT {x:UInt8}", "differ from those it uses"),
        ("No Name", "-- One.\nSELECT 1", "not a valid query name"),
    ],
)
def test_a_query_without_declared_parameters_is_rejected(
    name: str, text: str, entered: str
) -> None:
    with pytest.raises(InvalidError, match=entered):
        saved.read(name, text)


def test_own_queries_override_packaged_ones(tmp_path: Path) -> None:
    (tmp_path / "denials.sql").write_text("-- Mine.\nSELECT 1")
    (tmp_path / "notes.txt").write_text("not one")
    questions = saved.known(tmp_path)
    assert questions["denials"].about == "Mine."
    assert "approvals" in questions
    with pytest.raises(UnknownEntryError, match="no saved query 'none'"):
        saved.chosen("none", tmp_path)
    with pytest.raises(InvalidError, match="is not a directory"):
        saved.known(tmp_path / "nowhere")
    (tmp_path / "large.sql").write_text("-- Large.\n" + "x" * 70_000)
    with pytest.raises(InvalidError, match="64 KiB"):
        saved.known(tmp_path)


def test_an_event_pattern_is_literal_except_star_and_question_mark() -> None:
    assert like("call.*") == "call.%"
    assert like("call.?e") == "call._e"
    assert like("a_b%c\\") == "a\\_b\\%c\\\\"


def row(name: str, **given: object) -> dict[str, object]:
    counts = ("all_calls", "all_completed", "all_failed", "all_denied", "all_errors")
    counted = dict.fromkeys(counts, 2)
    return {"name": name, **counted, "dollars": 1.5, "p50_ms": 3.0, "p95_ms": 9.0, **given}


def report(name: str = "docs__search") -> Report:
    return Report(
        by="tool", since="2026-11-20 12:00:00", until="2026-11-21 12:30:00", total=row(""),
        tokens={"spent": 5, "classic": 50}, table=[row(name), row("", dollars=0.0)],
        steps=[row("", step="2026-11-20 12:00:00"), row("", step="2026-11-20 13:00:00")],
        codes=[{"code": "rule_denied", "calls": 4}],
    )  # fmt: skip


def test_the_page_is_complete_and_loads_nothing() -> None:
    result = page(report())
    whole = result.replace("<!doctype html>", "")
    ET.fromstring(re.sub(r"<meta [^>]*>", "", whole))  # every element is closed
    assert result.count("<svg") == 5
    assert result.count('role="img" aria-label="') == 5
    assert "prefers-color-scheme: dark" in result
    for outside in ("http:", "https:", "<script", "<link", "url(", "@import", " src="):
        assert outside not in result
    assert "default-src 'none'" in result


def test_names_chosen_by_servers_are_escaped() -> None:
    result = page(report('<img src=x onerror="alert(1)">'))
    assert "<img" not in result
    assert "&lt;img src=x" in result


def test_a_report_is_printed_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    _show(report())
    text = capsys.readouterr().out
    assert re.search(r"docs__search +2 +2 +2 +2 +1\.5000 +3\.0 +9\.0", text)
    assert re.search(r"\(all\) +2", text)
    assert "rule_denied" in text
    assert "5 tokens; sending every definition would have used 50" in text


def test_queries_are_listed_and_shown_with_their_sql(capsys: pytest.CaptureFixture[str]) -> None:
    queries("", own=None, as_json=False)
    assert "who-called" in capsys.readouterr().out
    queries("denials", own=None, as_json=False)
    assert "{since:DateTime}" in capsys.readouterr().out


def test_an_empty_report_is_a_page_without_charts() -> None:
    empty = Report(by="key", since="a", until="b", total=row(""), tokens={"spent": 0, "classic": 0})
    result = page(empty)
    assert "No calls." in result
    assert "<svg" not in result


def test_hours_and_days_without_calls_have_columns() -> None:
    result = page(report())
    calls = result.partition("<svg")[2].partition("</svg>")[0]
    assert calls.count("<rect") == 25 * 3  # from 12:00 to 12:30 of the next day
    assert "2026-11-20 14:00: 0 completed" in calls
    days = replace(report(), since="2026-11-01 00:00:00", until="2026-11-04 00:00:00", step="day")
    one = page(replace(days, steps=[row("", step="2026-11-02 00:00:00")]))
    shown = re.findall(r"<title>(2026-\S+): (\d) completed", one)
    assert shown == [("2026-11-01", "0"), ("2026-11-02", "2"), ("2026-11-03", "0")]
    old = page(replace(report(), since="1999-01-01 00:00:00"))
    assert old.partition("</svg>")[0].count("<rect") == 25 * 3, (
        "the first column is the first call's"
    )


def test_a_series_of_zeros_has_no_chart() -> None:
    assert over_time("Dollars", ["a", "b"], [("dollars", [0, 0.0])]) is None
    assert by_name("Dollars", []) is None


def test_bars_are_in_proportion_to_the_tallest() -> None:
    chart = over_time("Calls", ["a", "b"], [("one", [10, 5]), ("two", [10, 0])])
    assert chart is not None
    assert [bar.height for bar in chart.bars] == [82.0, 82.0, 41.0, 0.0]
    bars = by_name("Dollars", [("a", 4.0), ("b", 1.0)])
    assert bars is not None
    assert [bar.width for bar in bars.bars] == [320.0, 80.0]
