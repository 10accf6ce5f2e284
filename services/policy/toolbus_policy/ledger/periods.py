"""Calendar periods in any time zone, and parts of rolling periods (no clock, no I/O)."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from toolbus_common.config import Budget, Period

HOUR = 3600
PARTS = 60  # of a rolling period; one part more is counted, so that no spending is missed
ROLLING = {
    Period.HOUR: HOUR,
    Period.DAY: 24 * HOUR,
    Period.WEEK: 7 * 24 * HOUR,
    Period.MONTH: 30 * 24 * HOUR,
}
Span = tuple[int, int]


def span(period: Period, zone: ZoneInfo, now: float) -> Span:
    """Return the first second of the calendar period that contains `now`, and of the next period.

    Periods have no gaps and no overlaps, even when the zone changes its clocks.
    """
    if period is Period.HOUR:
        return _hour(zone, int(now))
    day = _first_day(period, datetime.fromtimestamp(now, zone).date())
    # If the clocks are set back across midnight, a date that has ended is repeated.
    while _midnight(_next_day(period, day), zone) <= now:
        day = _next_day(period, day)
    return _midnight(day, zone), _midnight(_next_day(period, day), zone)


def part_length(period: Period) -> int:
    """Return the length of one part of a rolling period, in seconds."""
    return ROLLING[period] // PARTS


def period_start(budget: Budget, now: float) -> float:
    """Return the first second whose spending counts in the budget at `now`."""
    if not budget.rolling:
        return span(Period(budget.per), budget.zone, now)[0]
    length = part_length(Period(budget.per))
    return float((int(now) // length - PARTS) * length)


class PeriodCache:
    """Period arguments of the ledger's script, computed once for each period.

    A calendar period is given by its bounds and its neighbours' bounds: the script uses its own
    clock, which may differ slightly from this one. A rolling period is given by the length of a
    part and the number of parts.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Period, str], tuple[int, ...]] = {}

    def arguments(self, budget: Budget, now: float) -> tuple[int, ...]:
        """Return the script's arguments for this budget's period."""
        period: Period = budget.per
        if budget.rolling:
            return part_length(period), PARTS
        key = period, budget.timezone
        bounds = self._known.get(key)
        if bounds is None or not bounds[1] <= now < bounds[2]:
            start, end = span(period, budget.zone, now)
            before, after = span(period, budget.zone, start - 1), span(period, budget.zone, end)
            bounds = self._known[key] = before[0], start, end, after[1]
        return bounds


def _first_day(period: Period, day: date) -> date:
    if period is Period.WEEK:
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if period is Period.MONTH else day


def _next_day(period: Period, day: date) -> date:
    if period is Period.MONTH:
        return (day + timedelta(days=31)).replace(day=1)
    return day + timedelta(days=7 if period is Period.WEEK else 1)


def _midnight(day: date, zone: ZoneInfo) -> int:
    """Return the first moment of a day.

    If the clocks skip midnight, return the moment of the change.
    """
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp())


def _offset(zone: ZoneInfo, second: int) -> int:
    offset = datetime.fromtimestamp(second, UTC).astimezone(zone).utcoffset() or timedelta()
    return int(offset.total_seconds())


def _hour(zone: ZoneInfo, second: int) -> Span:
    """Return the bounds of the local hour that contains `second`.

    If the clocks change within the hour, return only the part that contains `second`.
    """
    offset = _offset(zone, second)
    start = (second + offset) // HOUR * HOUR - offset
    end = start + HOUR
    for changed in _changes(zone, start, end):
        start, end = (changed, end) if changed <= second else (start, min(changed, end))
    return start, end


def _changes(zone: ZoneInfo, start: int, end: int) -> Iterator[int]:
    """Yield the moment within an hour at which the zone's clocks change, if there is one."""
    last = end - 1
    if (before := _offset(zone, start)) == _offset(zone, last):
        return
    while last - start > 1:
        middle = (start + last) // 2
        start, last = (middle, last) if _offset(zone, middle) == before else (start, middle)
    yield last
