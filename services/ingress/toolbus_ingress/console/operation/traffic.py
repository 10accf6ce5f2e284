"""Traffic of a period: calls, spending, latency and savings, compared with the period before."""

import asyncio
from dataclasses import dataclass
from time import gmtime, strftime, time
from typing import Any

from toolbus_ingress.console.pages.calls import queried
from toolbus_ingress.console.records.figures import Bar, bars_of
from toolbus_ingress.console.records.tables import shown
from toolbus_ingress.console.visitor import Visitor

HOUR = 3600
DAY = 24 * HOUR
_QUANTILES = (
    "arrayMap(us -> if(isNaN(us), 0, round(us / 1e3, 1)),"
    " quantilesTDigestMergeIf(0.5, 0.9, 0.95, 0.99)(latency, completed > 0))"
)
_OVER_TIME = """
SELECT intDiv(toUnixTimestamp({column}), {step}) * {step} AS at, sum(calls) AS calls,
    sum(failed) + sum(denied) AS failed, sum(charge) / 1e6 AS dollars,
    {latency} AS latency_ms
FROM {table}
WHERE {column} >= toDateTime({{since:Int64}}, 'UTC')
GROUP BY at
"""
_LATENCY = """
SELECT toUnixTimestamp({column}) >= {{start:Int64}} AS is_now,
    {latency} AS latency_ms
FROM {table}
WHERE {column} >= toDateTime({{since:Int64}}, 'UTC')
GROUP BY is_now
"""
_CODE_MODE = """
SELECT sum(classic_tokens) - sum(spent_tokens) AS tokens, sum(classic_tokens) AS classic
FROM context_by_hour
WHERE hour >= toDateTime({start:Int64}, 'UTC')
"""
_CACHE = """
SELECT count() AS hits, sum(saved_tokens) AS tokens, sum(saved) / 1e6 AS dollars
FROM model_requests
WHERE at >= toDateTime({start:Int64}, 'UTC') AND cache IN ('hit', 'semantic-hit')
"""
_MEASURES = {"calls": "Calls", "failed": "Denied or failed", "dollars": "Spending"}
_NONE = [0.0] * 4


@dataclass(frozen=True, slots=True)
class Period:
    """A period up to now: `bars` steps of `seconds` each, the last of which is not over."""

    title: str
    seconds: int
    bars: int
    table: str
    column: str
    form: str

    @property
    def length(self) -> int:
        """The duration in seconds."""
        return self.seconds * self.bars

    def statement(self, template: str) -> str:
        """Return a statement on the roll-ups that this period reads."""
        return template.format(
            table=self.table, column=self.column, step=self.seconds, latency=_QUANTILES
        )

    def label(self, at: int) -> str:
        """Return the start of a step as text."""
        return strftime(self.form, gmtime(at))


PERIODS = {
    "day": Period("24 hours", HOUR, 24, "calls_by_hour", "hour", "%H:00"),
    "week": Period("7 days", 6 * HOUR, 28, "calls_by_hour", "hour", "%m-%d %H:00"),
    "month": Period("30 days", DAY, 30, "calls_by_day", "day", "%Y-%m-%d"),
}


@dataclass(frozen=True, slots=True)
class Trend:
    """A chart of one measure. `change` compares its finished steps with the period before."""

    title: str
    total: str
    note: str
    change: str
    bars: list[Bar]


@dataclass(frozen=True, slots=True)
class Traffic:
    """The traffic of a period. `savings` has a line for each feature that saved tokens."""

    title: str
    trends: list[Trend]
    savings: list[str]


async def traffic_of(visitor: Visitor, name: str) -> Traffic:
    """Return the traffic of a period up to now. Raises `ProblemError`."""
    period = PERIODS.get(name, PERIODS["day"])
    end = (int(time()) // period.seconds + 1) * period.seconds
    start = end - period.length
    since, began = str(start - period.length), str(start)
    # Policy runs two queries at once; a third would be rejected if these took long.
    steps, latency = await asyncio.gather(
        queried(visitor, period.statement(_OVER_TIME), since=since),
        queried(visitor, period.statement(_LATENCY), since=since, start=began),
    )
    code_mode, cache = await asyncio.gather(
        queried(visitor, _CODE_MODE, start=began), queried(visitor, _CACHE, start=began)
    )
    found = {row["at"]: row for row in steps.records}
    quantiles = {bool(row["is_now"]): row["latency_ms"] for row in latency.records}
    trends = trends_of(period, end, found, quantiles)
    return Traffic(period.title, trends, _savings(code_mode.records[0], cache.records[0]))


def trends_of(
    period: Period, end: int, found: dict[int, Any], quantiles: dict[bool, list[float]]
) -> list[Trend]:
    """Return the charts of a period that ends at `end`, from the rows of each step by its start.

    `quantiles` are those of the latency in this period (True) and in the one before (False).
    """
    times = range(end - period.length, end, period.seconds)
    sums = {
        measure: sum(row[measure] for at, row in found.items() if at in times)
        for measure in _MEASURES
    }
    calls = sums["calls"]
    notes = {
        "calls": f"{calls / (period.length / HOUR):,.1f} per hour",
        "failed": f"{sums['failed'] / calls:.1%} of the calls" if calls else "",
        "dollars": f"${1000 * sums['dollars'] / calls:,.2f} per 1,000 calls" if calls else "",
    }
    trends = [
        Trend(
            title,
            shown(measure, sums[measure]),
            notes[measure],
            _change(period, measure, found, times),
            _bars(period, measure, found, times),
        )
        for measure, title in _MEASURES.items()
    ]
    return [*trends, _latency(period, found, times, quantiles)]


def _change(period: Period, measure: str, found: dict[int, Any], times: range) -> str:
    """Compare the finished steps with the same steps of the period before."""
    finished = [at for at in found if at in times[:-1]]
    before = [at for at in found if at + period.length in times[:-1]]
    return change_of(*(sum(found[at][measure] for at in part) for part in (finished, before)))


def _bars(period: Period, measure: str, found: dict[int, Any], times: range) -> list[Bar]:
    values = [(at, found[at][measure] if at in found else 0) for at in times]
    return bars_of([(period.label(at), value, shown(measure, value)) for at, value in values])


def _latency(
    period: Period, found: dict[int, Any], times: range, quantiles: dict[bool, list[float]]
) -> Trend:
    rows = []
    for at in times:
        p50, _, p95, p99 = found[at]["latency_ms"] if at in found else _NONE
        text = f"p50 {p50:,g} ms, p95 {p95:,g} ms, p99 {p99:,g} ms"
        rows.append((period.label(at), p95, text))
    p50, _, p95, p99 = quantiles.get(True, _NONE)
    note = f"p50 {p50:,.4g}, p99 {p99:,.4g} ms"
    change = change_of(p95, quantiles.get(False, _NONE)[2])
    return Trend("Latency, p95", f"{p95:,.4g} ms", note, change, bars_of(rows))


def change_of(now: float, before: float) -> str:
    """Return the change as text, such as "+12 %"; empty if there was nothing before."""
    return f"{round(100 * (now / before - 1)):+,} %" if before else ""


def _savings(code_mode: dict[str, Any], cache: dict[str, Any]) -> list[str]:
    lines = []
    if code_mode["tokens"] > 0:
        share = code_mode["tokens"] / code_mode["classic"]
        lines.append(
            f"Code mode: {code_mode['tokens']:,} tokens of definitions and results not sent "
            f"({share:.0%})"
        )
    if cache["hits"]:
        lines.append(
            f"Response cache: {cache['hits']:,} hits, {cache['tokens']:,} tokens, "
            f"${cache['dollars']:,.2f}"
        )
    return lines
