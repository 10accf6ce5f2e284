"""Saved questions, moments and the report's page: what is read, bound and drawn."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from toolbus_cli.analytics import saved_queries as saved
from toolbus_cli.analytics.charts import by_name, over_time
from toolbus_cli.analytics.report_data import Report
from toolbus_cli.analytics.report_page import page
from toolbus_cli.analytics.timestamps import moment, written
from toolbus_cli.commands.audit.reports import _show, queries
from toolbus_cli.errors import CommandError
from toolbus_common.contracts.queries.sql_text import like
from toolbus_common.errors import InvalidError

NOW = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
ASKED = "-- Who was here.\n-- since: DateTime = 7d | from when\n-- least: UInt8 | so many\nSELECT "
USED = "{since:DateTime}, {least:UInt8}"


@pytest.mark.parametrize(
    ("said", "meant"),
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
def test_a_moment_is_understood_as_people_say_it(said: str, meant: str) -> None:
    assert written(moment(said, NOW)) == meant


@pytest.mark.parametrize("said", ["", "yesterday", "-7d", "7", "999999w", "2026-13-01"])
def test_what_is_no_moment_is_told(said: str) -> None:
    with pytest.raises(InvalidError, match="is not a time"):
        moment(said, NOW)


def test_every_question_that_ships_has_a_sentence_and_tells_its_parameters() -> None:
    questions = saved.known(None)
    assert {"who-called", "spend-by-team", "slowest-tools", "denials", "denied-rules", "approvals",
            "definition-changes", "context-cost", "unpaired-intents"} <= set(questions)  # fmt: skip
    assert all(question.about.endswith(".") for question in questions.values())


def test_parameters_are_bound_as_text_and_moments_as_dates() -> None:
    question = saved.read("here", ASKED + USED)
    assert question.bound({"least": "3; DROP"}, NOW) == {
        "since": "2026-11-14 12:30:00",
        "least": "3; DROP",
    }
    with pytest.raises(InvalidError, match="requires --param least"):
        question.bound({}, NOW)
    with pytest.raises(InvalidError, match="has no parameter 'other'"):
        question.bound({"least": "1", "other": "2"}, NOW)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("here", "SELECT 1", "must begin"),
        ("here", ASKED + "1", "exactly the parameters"),
        ("here", "-- One.\nSELECT {x:UInt8}", "exactly the parameters"),
        ("No Name", "-- One.\nSELECT 1", "not a valid query name"),
    ],
)
def test_a_question_that_does_not_tell_what_it_takes_is_refused(
    name: str, text: str, said: str
) -> None:
    with pytest.raises(InvalidError, match=said):
        saved.read(name, text)


def test_ones_own_questions_join_those_that_ship_and_win(tmp_path: Path) -> None:
    (tmp_path / "denials.sql").write_text("-- Mine.\nSELECT 1")
    (tmp_path / "notes.txt").write_text("not one")
    questions = saved.known(tmp_path)
    assert questions["denials"].about == "Mine."
    assert "approvals" in questions
    with pytest.raises(CommandError, match="no saved query 'none'"):
        saved.chosen("none", tmp_path)
    with pytest.raises(InvalidError, match="is not a directory"):
        saved.known(tmp_path / "nowhere")
    (tmp_path / "large.sql").write_text("-- Large.\n" + "x" * 70_000)
    with pytest.raises(InvalidError, match="64 KiB"):
        saved.known(tmp_path)


def test_a_pattern_of_events_means_itself_but_for_star_and_question_mark() -> None:
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


def test_the_page_is_whole_and_asks_nobody_for_anything() -> None:
    result = page(report())
    whole = result.replace("<!doctype html>", "")
    ET.fromstring(re.sub(r"<meta [^>]*>", "", whole))  # every element is closed
    assert result.count("<svg") == 5
    assert result.count('role="img" aria-label="') == 5
    assert "prefers-color-scheme: dark" in result
    for outside in ("http:", "https:", "<script", "<link", "url(", "@import", " src="):
        assert outside not in result
    assert "default-src 'none'" in result


def test_names_that_servers_chose_are_text_on_the_page() -> None:
    result = page(report('<img src=x onerror="alert(1)">'))
    assert "<img" not in result
    assert "&lt;img src=x" in result


def test_a_report_is_a_table_for_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    _show(report())
    text = capsys.readouterr().out
    assert re.search(r"docs__search +2 +2 +2 +2 +1\.5000 +3\.0 +9\.0", text)
    assert re.search(r"\(all\) +2", text)
    assert "rule_denied" in text
    assert "5 tokens, where every definition would have been 50" in text


def test_questions_are_listed_and_shown_with_their_sql(capsys: pytest.CaptureFixture[str]) -> None:
    queries("", own=None, as_json=False)
    assert "who-called" in capsys.readouterr().out
    queries("denials", own=None, as_json=False)
    assert "{since:DateTime}" in capsys.readouterr().out


def test_a_report_of_nothing_is_a_page_too() -> None:
    empty = Report(by="key", since="a", until="b", total=row(""), tokens={"spent": 0, "classic": 0})
    result = page(empty)
    assert "No calls." in result
    assert "<svg" not in result


def test_hours_and_days_without_a_call_are_columns_too() -> None:
    result = page(report())
    calls = result.partition("<svg")[2].partition("</svg>")[0]
    assert calls.count("<rect") == 25 * 3  # from 12:00 to 12:30 of the next day
    assert "2026-11-20 14:00: 0 completed" in calls
    days = replace(report(), since="2026-11-01 00:00:00", until="2026-11-04 00:00:00", step="day")
    one = page(replace(days, steps=[row("", step="2026-11-02 00:00:00")]))
    shown = re.findall(r"<title>(2026-\S+): (\d) completed", one)
    assert shown == [("2026-11-01", "0"), ("2026-11-02", "2"), ("2026-11-03", "0")]
    old = page(replace(report(), since="1999-01-01 00:00:00"))
    assert old.partition("</svg>")[0].count("<rect") == 25 * 3, "from the first call on"


def test_what_never_happened_has_no_chart() -> None:
    assert over_time("Dollars", ["a", "b"], [("dollars", [0, 0.0])]) is None
    assert by_name("Dollars", []) is None


def test_the_tallest_bar_fills_its_chart_and_the_others_are_in_proportion() -> None:
    chart = over_time("Calls", ["a", "b"], [("one", [10, 5]), ("two", [10, 0])])
    assert chart is not None
    assert [bar.height for bar in chart.bars] == [82.0, 82.0, 41.0, 0.0]
    bars = by_name("Dollars", [("a", 4.0), ("b", 1.0)])
    assert bars is not None
    assert [bar.width for bar in bars.bars] == [320.0, 80.0]
