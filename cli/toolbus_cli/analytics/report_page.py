"""A report as one accessible HTML file without scripts or external resources, light and dark."""

from collections.abc import Sequence
from datetime import datetime, time, timedelta
from html import escape
from math import ceil
from typing import Any

from toolbus_cli.analytics.charts import by_name, over_time
from toolbus_cli.analytics.report_data import Report, Row

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --line: #d0d7de; --soft: #57606a;
  --s0: #0b69b7; --s1: #b3261e; --s2: #b7791f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --line: #30363d;
  --soft: #9da7b1; --s0: #58a6ff; --s1: #ff8078; --s2: #e3b341; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; } p { color: var(--soft); }
dl { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; } dt { color: var(--soft); }
dd { margin: 0; font-size: 1.4rem; font-variant-numeric: tabular-nums; }
figure { margin: 1.5rem 0; overflow-x: auto; } figcaption { font-weight: 600; }
svg { width: 100%; min-width: 34rem; height: auto; }
svg text { fill: var(--soft); font-size: 12px; }
rect.s0 { fill: var(--s0); } rect.s1 { fill: var(--s1); } rect.s2 { fill: var(--s2); }
.legend { font-weight: 400; } .legend span { white-space: nowrap; }
.legend span::before { content: "■ "; }
.legend .s0::before { color: var(--s0); } .legend .s1::before { color: var(--s1); }
.legend .s2::before { color: var(--s2); }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right;
  font-variant-numeric: tabular-nums; } th:first-child { text-align: left; }
tbody th { font-weight: 400; overflow-wrap: anywhere; min-width: 9rem; }
"""
_SHOWN = {
    "all_calls": "calls", "all_completed": "completed", "all_failed": "failed",
    "all_denied": "denied", "all_errors": "tool errors", "dollars": "dollars",
    "p50_ms": "p50 ms", "p95_ms": "p95 ms",
}  # fmt: skip
_DAY, _MINUTE = len("2026-11-01"), len("2026-11-01 12:00")
MOST_BARS = 12
MOST_EMPTY = 400  # steps shown from the report's start; a longer chart starts at the first call


def page(report: Report) -> str:
    """Return the report as an HTML document."""
    title = f"Toolbus, {report.since[:_MINUTE]} to {report.until[:_MINUTE]} UTC"
    shown = _DAY if report.step == "day" else _MINUTE
    columns = _columns(report)
    steps = [str(row["step"])[:shown] for row in columns]
    body = (
        f"<h1>{escape(title)}</h1><p>Calls by agents to tools, as recorded in the audit.</p>",
        _totals(report),
        over_time(f"Calls by {report.step}", steps, [
            ("completed", _of(columns, "all_completed")),
            ("failed", _of(columns, "all_failed")),
            ("denied", _of(columns, "all_denied")),
        ]),
        over_time(f"Dollars by {report.step}", steps, [("dollars", _of(columns, "dollars"))]),
        over_time(f"p95 by {report.step}", steps, [("ms", _of(columns, "p95_ms"))]),
        by_name(f"Dollars by {report.by}", _largest(report.table, "dollars")),
        by_name("Why calls failed or were denied", _codes(report)),
        f"<h2>By {report.by}</h2>", _table(report),
        "<p>The list is truncated to the most expensive.</p>" if report.more else "",
    )  # fmt: skip
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _totals(report: Report) -> str:
    figures = {_SHOWN[name]: report.total[name] for name in _SHOWN if name in report.total}
    figures["tokens spent"] = report.tokens["spent"]
    shown = (
        f"<div><dt>{escape(name)}</dt><dd>{_figure(value)}</dd></div>"
        for name, value in figures.items()
    )
    return f"<dl>{''.join(shown)}</dl>"


def _table(report: Report) -> str:
    if not report.table:
        return "<p>No calls.</p>"
    head = "".join(f'<th scope="col">{escape(word)}</th>' for word in (report.by, *_SHOWN.values()))
    lines = (
        f'<tr><th scope="row">{_figure(row["name"])}</th>'
        + "".join(f"<td>{_figure(row[name])}</td>" for name in _SHOWN)
        + "</tr>"
        for row in report.table
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f'<div class="wide" tabindex="0" role="group" aria-label="By {report.by}">{table}</div>'


def _figure(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else escape(str(value) or "(none)")


def _columns(report: Report) -> list[Row]:
    """Return a row for each hour or day of the period, with zeros where there were no calls."""
    if not report.steps:
        return []
    known = {datetime.fromisoformat(str(row["step"])): row for row in report.steps}
    since, until = map(datetime.fromisoformat, (report.since, report.until))
    step = timedelta(days=1) if report.step == "day" else timedelta(hours=1)
    begin = datetime.combine(since, time(since.hour if report.step == "hour" else 0))
    if (until - begin) / step > MOST_EMPTY:
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
    return sorted(found, key=lambda pair: -pair[1])[:MOST_BARS]
