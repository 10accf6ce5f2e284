"""Tables of recorded events for pages: types of columns, texts, links, and CSV."""

import csv
import io
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from toolbus_ingress.console.pages.calls import Table
from toolbus_ingress.console.visitor import address

NAMES = ("customer", "team", "user", "key", "server", "tool", "provider", "model", "guard", "rule")
_DOLLARS = re.compile(r"(^|_)dollars(_|$)")
_CENT = 0.01
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_DAYS = re.compile(r"([0-9]{1,4})([mhdw])")
_IN_DAYS = {"m": 1 / 1440, "h": 1 / 24, "d": 1, "w": 7}
MOST_DAYS = 365


def is_number(value: Any) -> bool:
    """Return whether a value is a number, and not a Boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def numeric_columns(table: Table) -> list[str]:
    """Return the columns that have only numbers and missing values, and at least one number."""
    found = []
    for at, name in enumerate(table.columns):
        values = [row[at] for row in table.rows if row[at] is not None]
        if values and all(map(is_number, values)):
            found.append(name)
    return found


def shown(column: str, value: Any) -> str:
    """Return the text of a value."""
    if value is None:
        return ""
    if is_number(value):
        if _DOLLARS.search(column):
            return f"${value:,.2f}" if abs(value) >= _CENT or value == 0 else f"${value:,.4f}"
        if isinstance(value, float):
            return f"{value:,.2f}".rstrip("0").rstrip(".")
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(shown(column, each) for each in value)
    return str(value)


def in_days(since: str) -> int:
    """Return a period such as `36h` in days, rounded up; 30 if the text is not a period."""
    found = _DAYS.fullmatch(since)
    days = int(found[1]) * _IN_DAYS[found[2]] if found else 30
    return max(1, min(MOST_DAYS, round(days + 0.49)))


def link_of(row: Mapping[str, Any], days: int) -> str:
    """Return the link of a row: to its call, its run or the calls that it counts; or empty."""
    if call := row.get("call_id"):
        return address("calls", str(call))
    if run := row.get("run"):
        return f"{address('analytics', 'one-run')}?{urlencode({'run': run})}"
    first, second = (
        row.get("server") or row.get("provider") or "",
        row.get("tool") or row.get("model") or "",
    )
    tool = str(second) if "__" in str(second) or not first else f"{first}__{second}"
    selected = {"key": str(row.get("key") or ""), "tool": tool}
    if not any(selected.values()):
        return ""
    return f"{address('calls')}?{urlencode({**selected, 'days': days})}"


def csv_of(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> bytes:
    """Return CSV in UTF-8, with a quote before texts that spreadsheets run as formulas."""
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return written.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value
