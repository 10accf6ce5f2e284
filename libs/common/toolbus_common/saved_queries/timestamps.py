"""Times that people write: a date, a time, or a duration before now."""

import re
from datetime import UTC, datetime, timedelta

from toolbus_common.errors import InvalidError

_AGO = re.compile(r"(\d{1,6})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str, now: datetime) -> datetime:
    """Parse a date, a time, `now` or a duration before `now`; return the time in UTC.

    A time without a zone is read as UTC. Raises `InvalidError` if the text has none of these forms.
    """
    if text == "now":
        return now
    try:
        if ago := _AGO.fullmatch(text):
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidError(
            f"'{text[:40]}' is not a time; use now, 30m, 24h, 7d, 2026-11-01 or 2026-11-01T02:47."
        ) from None


def written(at: datetime) -> str:
    """Format a time as the value of a ClickHouse DateTime parameter."""
    return f"{at:%Y-%m-%d %H:%M:%S}"
