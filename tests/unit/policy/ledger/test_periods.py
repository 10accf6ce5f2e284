"""Budget periods: no gap and no overlap in any zone, whatever its clocks do."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.config import Budget, Period
from toolbus_policy.ledger.periods import PARTS, PeriodCache, part_length, period_start, span

# Zones with half-hour clock changes, changes at midnight, a skipped day, odd offsets.
ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu",
    "America/Sao_Paulo", "America/Havana", "America/St_Johns", "Pacific/Apia", "Asia/Tehran",
    "Africa/Casablanca", "Antarctica/Troll",
)  # fmt: skip
PERIODS = (Period.HOUR, Period.DAY, Period.WEEK, Period.MONTH)
SECONDS = st.integers(min_value=946_684_800, max_value=4_000_000_000)  # from the year 2000 on
LONGEST = {Period.HOUR: 1, Period.DAY: 26, Period.WEEK: 170, Period.MONTH: 31 * 24 + 2}


def second(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp())


@given(SECONDS, st.sampled_from(PERIODS), st.sampled_from(ZONES))
def test_periods_follow_each_other_without_gap_or_overlap(
    now: int, period: Period, name: str
) -> None:
    zone = ZoneInfo(name)
    start, end = span(period, zone, now)
    assert start <= now < end <= start + LONGEST[period] * 3600
    assert span(period, zone, start) == span(period, zone, end - 1) == (start, end)
    assert span(period, zone, end)[0] == end
    assert span(period, zone, start - 1)[1] == start


@given(SECONDS, st.sampled_from(PERIODS))
def test_periods_in_utc_follow_the_calendar(now: int, period: Period) -> None:
    start = datetime.fromtimestamp(span(period, ZoneInfo("UTC"), now)[0], UTC)
    assert (start.minute, start.second) == (0, 0)
    assert period is Period.HOUR or start.hour == 0
    assert period is not Period.WEEK or start.weekday() == 0
    assert period is not Period.MONTH or start.day == 1


@pytest.mark.parametrize(
    ("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)]
)
def test_a_day_has_the_length_of_its_clock_changes(day: str, hours: int) -> None:
    noon = second(f"{day}T12:00:00", "Europe/Berlin")
    start, end = span(Period.DAY, ZoneInfo("Europe/Berlin"), noon)
    assert start == second(f"{day}T00:00:00", "Europe/Berlin")
    assert end - start == hours * 3600


def test_a_day_without_midnight_starts_at_the_clock_change() -> None:
    noon = second("2018-11-04T12:00:00", "America/Sao_Paulo")
    start, _ = span(Period.DAY, ZoneInfo("America/Sao_Paulo"), noon)
    assert datetime.fromtimestamp(start, ZoneInfo("America/Sao_Paulo")).hour == 1


def test_an_hour_starts_with_the_zones_hour() -> None:
    start, end = span(Period.HOUR, ZoneInfo("Asia/Kathmandu"), second("2026-01-01T10:00:00"))
    assert (start, end) == (second("2026-01-01T09:15:00"), second("2026-01-01T10:15:00"))


@given(SECONDS, st.sampled_from(PERIODS), st.sampled_from(ZONES))
def test_the_script_gets_the_periods_before_and_after(now: int, period: Period, name: str) -> None:
    budget = Budget(usd=1, per=period, timezone=name)
    before, start, end, after = PeriodCache().arguments(budget, now)
    zone = ZoneInfo(name)
    assert (start, end) == span(period, zone, now)
    assert before == span(period, zone, start - 1)[0]
    assert after == span(period, zone, end)[1]


def test_computed_bounds_are_cached_until_the_period_ends() -> None:
    calendars, budget = PeriodCache(), Budget(usd=1, per=Period.HOUR)
    first = calendars.arguments(budget, 7200.0)
    assert calendars.arguments(budget, 10_799.9) is first
    assert calendars.arguments(budget, 10_800.0)[1] == 10_800


@given(SECONDS, st.sampled_from(PERIODS))
def test_a_rolling_period_counts_until_it_has_passed(now: int, period: Period) -> None:
    budget = Budget(usd=1, per=period, rolling=True)
    length = part_length(period) * PARTS
    assert now - length - part_length(period) <= period_start(budget, now) <= now - length
