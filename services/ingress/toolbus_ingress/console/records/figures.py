"""Charts of tables: sums over time, or the largest values by name."""

import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from toolbus_ingress.console.pages.calls import Table
from toolbus_ingress.console.records.tables import NAMES, is_number, numeric_columns, shown

MOST_BARS = 12
MOST_TIMES = 100
_PERIODS = ("day", "hour")
_MOMENTS = ("at", "started", "last")
_NO_SUM = re.compile(
    r"(^|_)(ms|percent|share|rate|p50|p5|p1|p9\d|seq|line|per_call|version|size)(_|$)"
)
_PREFERRED = ("dollars", "calls", "requests", "denials", "findings", "checks", "spent_tokens")
COUNT = "rows"


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its name, its value as text, and its length in percent of the longest."""

    label: str
    text: str
    percent: float


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart of one measure.

    It has a bar for each `period`, or bars of the largest values if `period` is empty.
    """

    measure: str
    bars: list[Bar]
    period: str = ""
    total: str = ""


def measures_of(table: Table) -> list[str]:
    """Return the columns that a chart can show, the most informative first."""
    found = numeric_columns(table)
    if _period_of(table):
        found = [name for name in found if not _NO_SUM.search(name)]
    found.sort(key=lambda name: _PREFERRED.index(name) if name in _PREFERRED else len(_PREFERRED))
    if not _period_of(table) and any(each in table.columns for each in _MOMENTS):
        return [COUNT, *found]
    return found


def figure_of(table: Table, measure: str = "") -> Figure | None:
    """Return a chart of a measure (default: the most informative); None without any data."""
    known = measures_of(table)
    if not known or not table.rows:
        return None
    chosen = measure if measure in known else known[0]
    period = _period_of(table)
    if chosen == COUNT or period:
        return _over_time(table, chosen, period)
    return _largest(table, chosen)


def _period_of(table: Table) -> str:
    return next((each for each in _PERIODS if each in table.columns), "")


def _over_time(table: Table, measure: str, period: str) -> Figure | None:
    sums: Counter[datetime] = Counter()
    column = period or next(each for each in _MOMENTS if each in table.columns)
    records = table.records
    times = [found for each in records if (found := _time(each[column])) is not None]
    if not times:
        return None
    daily = period == "day" or (not period and max(times) - min(times) > timedelta(days=2))
    for each in records:
        at, value = _time(each[column]), 1 if measure == COUNT else each[measure]
        if at is not None and is_number(value):
            start = at.replace(minute=0, second=0, microsecond=0)
            sums[start.replace(hour=0) if daily else start] += value
    step = timedelta(days=1) if daily else timedelta(hours=1)
    first, last = min(sums, default=times[0]), max(sums, default=times[0])
    first = max(first, last - step * (MOST_TIMES - 1))
    places = [first + step * number for number in range(int((last - first) / step) + 1)]
    form = "%Y-%m-%d" if daily else "%m-%d %H:%M"
    pairs = [(f"{at:{form}}", sums[at]) for at in places]
    total = shown(measure, sum(value for _, value in pairs))
    return Figure(measure, _bars(measure, pairs), "day" if daily else "hour", total)


def _largest(table: Table, measure: str) -> Figure:
    names = [each for each in table.columns if each in NAMES]
    if not names:
        numbers = set(numeric_columns(table))
        names = [each for each in table.columns if each not in numbers and each != "call_id"][:2]
    sums: dict[str, Any] = {}
    for each in table.records:
        label = " · ".join(str(each[name]) for name in names if each[name] not in ("", None))
        value = each[measure] or 0
        known = sums.get(label)
        if known is None:
            sums[label] = value
        else:
            sums[label] = max(known, value) if _NO_SUM.search(measure) else known + value
    pairs = sorted(sums.items(), key=lambda pair: -pair[1])[:MOST_BARS]
    named = [(label or "(none)", value) for label, value in pairs]
    return Figure(measure, _bars(measure, named))


def _bars(measure: str, pairs: list[tuple[str, Any]]) -> list[Bar]:
    return bars_of([(label, value, shown(measure, value)) for label, value in pairs])


def bars_of(rows: list[tuple[str, Any, str]]) -> list[Bar]:
    """Return a bar for each label, value and text."""
    most = max((value for _, value, _ in rows), default=0) or 1
    return [Bar(label, text, max(round(100 * value / most, 2), 0)) for label, value, text in rows]


def _time(value: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
