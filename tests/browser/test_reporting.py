"""A mailed report, opened in a real browser."""

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.clients.chromium_browser import Person
from harness.gateway.browser_gateway import ROOT, Gateway
from harness.waits import until_blocking
from toolbus_cli.analytics.report_data import Report, Row
from toolbus_cli.analytics.report_page import page

CHARTS = 5


def row(name: str, calls: int, **more: object) -> Row:
    """Return the figures of one row."""
    failed, denied = calls // 9, calls // 23
    return {
        "name": name, "all_calls": calls, "all_completed": calls - failed - denied,
        "all_failed": failed, "all_denied": denied, "all_errors": calls // 40,
        "dollars": calls * 0.0125, "p50_ms": 3.0 + calls % 7, "p95_ms": 30.0 + calls % 61, **more,
    }  # fmt: skip


def a_week() -> Report:
    """Return days with and without calls, tools with short and long names."""
    tools = [
        "docs__search",
        "git__git_log",
        "warehouse__list_" + "every_" * 12 + "shipment",
        "x__y",
    ]
    steps = [row("", day * 977 % 4001, step=f"2026-11-{day:02} 00:00:00") for day in range(1, 22)]
    codes = [("rule_denied", 41), ("upstream_timeout", 17), ("budget_exceeded", 3)]
    return Report(
        by="tool", since="2026-11-01 00:00:00", until="2026-11-22 00:00:00", step="day",
        total=row("", 41_234), tokens={"spent": 1_234_567, "classic": 50_000_000},
        table=[row(name, 9_973 // (at + 1)) for at, name in enumerate(tools)], steps=steps,
        codes=[{"code": code, "calls": calls} for code, calls in codes],
    )  # fmt: skip


def drawn(person: Person) -> list[int]:
    """Return the number of visible bars in each chart."""
    bars = "e => [...e.querySelectorAll('rect')].filter(r => r.getBBox().height > 0).length"
    charts = person.page.locator("svg").all()
    assert all(chart.bounding_box() for chart in charts)
    return [int(chart.evaluate(bars)) for chart in charts]


def test_a_report_of_this_gateway_shows_its_calls(
    gateway: Gateway, someone: Callable[..., Person], tmp_path: Path
) -> None:
    launched = gateway.launched
    assert launched.client(ROOT).call("echo__say", {"text": "for the report"}).text
    written = tmp_path / "report.html"

    def reported() -> bool:
        result = launched.toolbus("audit", "report", "--html", str(written))
        assert result.returncode == 0, result.stderr
        return "echo__say" in written.read_text()

    until_blocking(reported, "the call is in the report")
    analyst = someone()
    analyst.opens(written.as_uri())
    assert "echo__say" in analyst.page.locator("table").inner_text()
    assert drawn(analyst)[0] > 0
    analyst.keeps("report")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_of_a_week_shows_every_chart(
    someone: Callable[..., Person], tmp_path: Path, scheme: str
) -> None:
    written = tmp_path / "week.html"
    written.write_text(page(a_week()), "utf-8")
    analyst = someone(color_scheme=scheme)
    analyst.opens(written.as_uri())
    found = drawn(analyst)
    assert len(found) == CHARTS
    assert all(found)
    analyst.keeps(f"report-of-a-week-{scheme}")
    assert not analyst.overflows


def test_a_report_fits_a_phone(someone: Callable[..., Person], tmp_path: Path) -> None:
    written = tmp_path / "week.html"
    written.write_text(page(a_week()), "utf-8")
    analyst = someone(viewport={"width": 360, "height": 640}, is_mobile=True, has_touch=True)
    analyst.opens(written.as_uri())
    analyst.keeps("phone-report")
    assert not analyst.overflows
