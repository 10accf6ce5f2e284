"""Expiry of keys and levels: at the end of a day in UTC, or at a given time."""

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_TIME = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?(?:[Zz]|[+-]\d{2}:?\d{2})?"
)
FORMS = "a day such as 2027-01-31 (UTC, included) or a time such as 2027-01-31T18:00Z"


def parse_expiry(given: Any) -> date | datetime:
    """Return the day or time of a configured value. Raises `ValueError` if it is invalid.

    A time without an offset is in UTC.
    """
    try:
        if isinstance(given, str) and _DAY.fullmatch(given):
            return date.fromisoformat(given)
        if isinstance(given, str) and _TIME.fullmatch(given):
            return _utc(datetime.fromisoformat(given.upper()))
        if isinstance(given, date):
            return _utc(given) if isinstance(given, datetime) else given
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"must be {FORMS}")


Expiry = Annotated[date | datetime, BeforeValidator(parse_expiry)]


def ends_at(expires: date | datetime) -> float:
    """Return the first moment, in seconds since the epoch, at which access has expired."""
    if isinstance(expires, datetime):
        return _utc(expires).timestamp()
    return datetime.combine(expires, time.min, UTC).timestamp() + timedelta(days=1).total_seconds()


def expired(expires: date | datetime | None, now: float) -> bool:
    """Return whether the expiry has passed at `now`. The value None never expires."""
    return expires is not None and now >= ends_at(expires)


def shown_expiry(expires: date | datetime | None) -> str:
    """Return the text form that the configuration and the commands accept; empty for None."""
    if expires is None:
        return ""
    text = expires.isoformat()
    return text.replace("+00:00", "Z") if isinstance(expires, datetime) else text


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
