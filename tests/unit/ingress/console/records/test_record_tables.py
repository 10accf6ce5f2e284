"""Tables of recorded events on pages: texts, links to calls, CSV, and charts."""

import csv
import io

import pytest

from toolbus_ingress.console.pages.calls import Table
from toolbus_ingress.console.records.figures import COUNT, figure_of, measures_of
from toolbus_ingress.console.records.tables import csv_of, in_days, link_of, numeric_columns, shown

DAYS = Table(
    ["day", "customer", "calls", "dollars"],
    [
        ["2026-11-01", "acme", 3, 0.5],
        ["2026-11-01", "globex", 1, 1.5],
        ["2026-11-03", "acme", 1, 2],
    ],
)
TOOLS = Table(
    ["server", "tool", "calls", "p95_ms"],
    [["docs", "read", 2, 12.5], ["docs", "<b>", 9, None], ["", "", 1, 3.0]],
)


def test_a_chart_over_time_has_a_bar_for_each_day_between() -> None:
    figure = figure_of(DAYS)
    assert figure is not None
    assert (figure.measure, figure.period, figure.total) == ("dollars", "day", "$4.00")
    assert [bar.label for bar in figure.bars] == ["2026-11-01", "2026-11-02", "2026-11-03"]
    assert [bar.percent for bar in figure.bars] == [100, 0, 100]


def test_a_chart_of_names_has_the_largest_first_and_at_most_twelve() -> None:
    figure = figure_of(TOOLS, "calls")
    assert figure is not None
    assert [(bar.label, bar.text) for bar in figure.bars] == [
        ("docs · <b>", "9"), ("docs · read", "2"), ("(none)", "1"),
    ]  # fmt: skip
    many = Table(["key", "calls"], [[f"key-{at}", at] for at in range(50)])
    assert len(getattr(figure_of(many), "bars", [])) == 12


def test_percentiles_are_not_added_up_over_time() -> None:
    table = Table(["hour", "p95_ms", "calls"], [["2026-11-01 10:00:00", 5.0, 2]])
    assert measures_of(table) == ["calls"]
    assert measures_of(TOOLS) == ["calls", "p95_ms"]


def test_a_list_of_times_is_shown_as_a_count_per_hour() -> None:
    table = Table(["at", "event"], [["2026-11-01 10:59:59.5", "x"], ["2026-11-01 11:00:00", "y"]])
    figure = figure_of(table)
    assert figure is not None
    assert (figure.measure, figure.period, figure.total) == (COUNT, "hour", "2")


@pytest.mark.parametrize(
    "table",
    [
        Table([], []),
        Table(["event"], [["x"]]),
        Table(["day", "calls"], [["no date", 1]]),
        Table(["at", "calls"], [[None, 1]]),
    ],
)
def test_a_table_without_anything_to_measure_has_no_chart(table: Table) -> None:
    assert figure_of(table) is None


def test_a_chart_over_a_very_long_time_shows_its_last_days() -> None:
    table = Table(["day", "calls"], [["0001-01-01", 1], ["9999-12-31", 1]])
    assert len(getattr(figure_of(table), "bars", [])) == 100


@pytest.mark.parametrize(
    ("row", "link"),
    [
        ({"call_id": "a/b"}, "/console/calls/a%2Fb"),
        ({"run": "4bf9"}, "/console/analytics/one-run?run=4bf9"),
        ({"server": "docs", "tool": "read"}, "/console/calls?key=&tool=docs__read&days=7"),
        ({"tool": "docs__read", "key": "b&c"}, "/console/calls?key=b%26c&tool=docs__read&days=7"),
        ({"provider": "p", "model": "m"}, "/console/calls?key=&tool=p__m&days=7"),
        ({"customer": "acme", "calls": 3}, ""),
    ],
)
def test_a_row_leads_to_its_calls(row: dict[str, object], link: str) -> None:
    assert link_of(row, 7) == link


@pytest.mark.parametrize(
    ("since", "days"), [("30m", 1), ("36h", 2), ("7d", 7), ("2w", 14), ("9999w", 365), ("x", 30)]
)
def test_a_period_is_rounded_up_to_days(since: str, days: int) -> None:
    assert in_days(since) == days


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("dollars", 0, "$0.00"), ("dollars", 0.0012, "$0.0012"), ("a_dollars", 1234.5, "$1,234.50"),
        ("calls", 1234, "1,234"), ("ms", 12.5, "12.5"), ("x", None, ""), ("x", True, "True"),
        ("quantiles", [1.0, 2.25], "1, 2.25"), ("x", "<i>", "<i>"),
    ],
)  # fmt: skip
def test_a_value_is_shown_for_people(column: str, value: object, text: str) -> None:
    assert shown(column, value) == text


def test_csv_has_every_value_and_runs_no_formula() -> None:
    rows: list[list[object]] = [["=1+1", -5, 'a,b\n"c"'], ["@x", None, ["p", "q"]]]
    read = list(csv.reader(io.StringIO(csv_of(["a", "b", "c"], rows).decode())))
    assert read == [["a", "b", "c"], ["'=1+1", "-5", 'a,b\n"c"'], ["'@x", "", "p, q"]]


def test_only_columns_of_numbers_are_amounts() -> None:
    table = Table(["a", "b", "c", "d"], [[1, "1", None, True], [None, "2", None, False]])
    assert numeric_columns(table) == ["a"]
