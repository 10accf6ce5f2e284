"""A report as one accessible HTML file without scripts or external resources, light and dark."""

from collections.abc import Sequence
from datetime import datetime, time, timedelta
from math import ceil
from typing import Any

from toolbus_cli.analytics.charts import by_name, over_time
from toolbus_cli.analytics.report_data import Report, Row
from toolbus_common.web.html import render

_SHOWN = {
    "all_calls": "calls", "all_completed": "completed", "all_failed": "failed",
    "all_denied": "denied", "all_errors": "tool errors", "dollars": "dollars",
    "p50_ms": "p50 ms", "p95_ms": "p95 ms",
}  # fmt: skip
_OUTCOMES = ("all_completed", "all_failed", "all_denied")
_DAY, _MINUTE = len("2026-11-01"), len("2026-11-01 12:00")
MAX_BARS = 12
MAX_EMPTY = 400  # a chart with more hours or days starts at the first call


def page(report: Report) -> str:
    """Return the report as an HTML document."""
    shown = _DAY if report.step == "day" else _MINUTE
    columns = _columns(report)
    steps = [str(row["step"])[:shown] for row in columns]
    calls = [(_SHOWN[name], _of(columns, name)) for name in _OUTCOMES]
    charts = (
        over_time(f"Calls by {report.step}", steps, calls),
        over_time(f"Dollars by {report.step}", steps, [("dollars", _of(columns, "dollars"))]),
        over_time(f"p95 by {report.step}", steps, [("ms", _of(columns, "p95_ms"))]),
        by_name(f"Dollars by {report.by}", _largest(report.table, "dollars")),
        by_name("Why calls failed or were denied", _codes(report)),
    )
    return render(
        "toolbus_cli.analytics/report.html",
        title=f"Calls from {report.since[:_MINUTE]} to {report.until[:_MINUTE]} UTC",
        totals=_totals(report),
        charts=[chart for chart in charts if chart is not None],
        by=report.by,
        columns=(report.by, *_SHOWN.values()),
        rows=[
            (_figure(row["name"]), [_figure(row[name]) for name in _SHOWN]) for row in report.table
        ],
        more=report.more,
    )


def _totals(report: Report) -> list[tuple[str, str]]:
    figures = {_SHOWN[name]: report.total[name] for name in _SHOWN if name in report.total}
    figures["tokens spent"] = report.tokens["spent"]
    return [(name, _figure(value)) for name, value in figures.items()]


def _figure(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value) or "(none)"


def _columns(report: Report) -> list[Row]:
    """Return one row per hour or day of the period; a row without calls contains zeros."""
    if not report.steps:
        return []
    known = {datetime.fromisoformat(str(row["step"])): row for row in report.steps}
    since, until = map(datetime.fromisoformat, (report.since, report.until))
    step = timedelta(days=1) if report.step == "day" else timedelta(hours=1)
    begin = datetime.combine(since, time(since.hour if report.step == "hour" else 0))
    if (until - begin) / step > MAX_EMPTY:
        begin = min(known)
    nothing = dict.fromkeys(_SHOWN, 0)
    moments = (begin + step * at for at in range(ceil((until - begin) / step)))
    return [known.get(each) or {"step": each, **nothing} for each in moments]


def _of(rows: Sequence[Row], name: str) -> list[float]:
    return [max(float(row[name]), 0.0) for row in rows]


def _codes(report: Report) -> list[tuple[str, float]]:
    return [(row["code"], float(row["calls"])) for row in report.codes]


def _largest(rows: Sequence[Row], name: str) -> list[tuple[str, float]]:
    found = [(str(row["name"]) or "(none)", float(row[name])) for row in rows if row[name]]
    return sorted(found, key=lambda pair: -pair[1])[:MAX_BARS]
