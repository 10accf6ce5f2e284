"""Roll-ups of closed hours and days, so that queries over long spans do not read every event.

A roll-up of an hour is valid while it counts as many events as the hour has (view `hours`). A
roll-up of a day is valid while it was computed from the valid roll-ups of its hours (view `days`).
The service may be killed at any moment, and events may arrive late. Therefore the views compute
hours and days without a valid roll-up from their source.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from itertools import accumulate
from time import time
from typing import Any

from toolbus_audit.clickhouse.errors import RowsRejectedError, StoreDownError
from toolbus_common.contracts.queries.sql_text import quoted

log = logging.getLogger(__name__)

EVERY_SECONDS = 60.0
SETTLED_SECONDS = 120  # to wait for the last events after the end of an hour
HOURS_AT_ONCE = 24
DAYS_AT_ONCE = 500  # pairs of a day and a customer
EVENTS_AT_ONCE = 2_000_000
_DUE = f"""
SELECT toUnixTimestamp(hour), sum(events) FROM hours
WHERE NOT valid AND hour < toStartOfHour(now() - toIntervalSecond({SETTLED_SECONDS}))
GROUP BY hour ORDER BY hour LIMIT {HOURS_AT_ONCE}
"""  # noqa: S608 - constants of this module
_ROLL_UP = """
INSERT INTO rollup_hours (hour, customer, team, key, server, tool, event, code, events, charge,
    corrected,
    errors, spent_tokens, classic_tokens, input_tokens, cached_tokens, output_tokens, latency,
    version)
SELECT hour, customer, team, key, server, tool, event, code, events, charge,
    corrected, errors,
    spent_tokens, classic_tokens, input_tokens, cached_tokens, output_tokens, latency, {version}
FROM rollup_hours_live WHERE hour IN ({hours})
"""
_LATE_OUTCOMES = """
INSERT INTO late_outcomes (hour, customer, call_id)
SELECT hour, customer, call_id FROM late_outcomes_live WHERE hour IN ({hours})
"""
# Written last: if the service is killed before, no view reads the rows of this version.
_MARK_DONE = """
INSERT INTO rollup_hours_done (hour, customer, events, version)
SELECT hour, customer, sum(events), {version} FROM rollup_hours
WHERE version = {version} AND hour IN ({hours}) GROUP BY hour, customer
"""
_DAYS_DUE = f"""
SELECT toString(day), customer, source_hash, events FROM days
WHERE complete AND NOT valid AND day < toDate(now('UTC')) ORDER BY day LIMIT {DAYS_AT_ONCE}
"""  # noqa: S608 - constants of this module
_ROLL_UP_DAYS = """
INSERT INTO rollup_days (day, customer, team, key, server, tool, event, code, events, charge,
    corrected,
    errors, spent_tokens, classic_tokens, input_tokens, cached_tokens, output_tokens, latency,
    version)
SELECT toDate(hour) AS day, customer, team, key, server, tool, event, code, sum(events),
    sum(charge), sum(corrected), sum(errors), sum(spent_tokens), sum(classic_tokens),
    sum(input_tokens), sum(cached_tokens), sum(output_tokens),
    quantilesTDigestMergeState(0.5, 0.9, 0.95, 0.99)(latency), {version}
FROM rollup_hours
WHERE (toDate(hour), customer) IN (SELECT day, customer FROM {days})
    AND (hour, customer, version) IN (SELECT hour, customer, version FROM hours WHERE valid)
GROUP BY day, customer, team, key, server, tool, event, code
"""
# `source_hash` was read before the roll-up was written: if an hour changed since, it differs.
_MARK_DAYS_DONE = """
INSERT INTO rollup_days_done (day, customer, events, source_hash, version)
SELECT written.day, written.customer, written.events, due.source_hash, {version}
FROM (
    SELECT day, customer, sum(events) AS events FROM rollup_days WHERE version = {version}
    GROUP BY day, customer
) AS written
INNER JOIN {days} AS due ON written.day = due.day AND written.customer = due.customer
"""

Rows = Callable[[str], Awaitable[list[tuple[Any, ...]]]]


async def roll_up_hours(rows: Rows) -> int:
    """Roll up the oldest hours that are due and return their number. Safe to run concurrently."""
    due = _limit_by_events(await rows(_DUE))
    if due:
        hours = ", ".join(f"toDateTime({hour}, 'UTC')" for hour, _ in due)
        version = int(time() * 1e6)
        await rows(_ROLL_UP.format(hours=hours, version=version))
        await rows(_LATE_OUTCOMES.format(hours=hours))
        await rows(_MARK_DONE.format(hours=hours, version=version))
    return len(due)


async def roll_up_days(rows: Rows) -> int:
    """Roll up the oldest days that are due and return their number. Safe to run concurrently."""
    due = _limit_by_events(await rows(_DAYS_DUE))
    if due:
        values = ", ".join(f"('{day}', {quoted(customer)}, {of})" for day, customer, of, _ in due)
        days = f"values('day Date, customer String, source_hash UInt64', {values})"
        version = int(time() * 1e6)
        await rows(_ROLL_UP_DAYS.format(days=days, version=version))
        await rows(_MARK_DAYS_DONE.format(days=days, version=version))
    return len(due)


def _limit_by_events(due: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return the first entries with together at most `EVENTS_AT_ONCE` events, but at least one.

    The last column of an entry is its number of events.
    """
    together = accumulate(each[-1] for each in due)
    return [
        each
        for number, (each, events) in enumerate(zip(due, together, strict=True))
        if number == 0 or events <= EVENTS_AT_ONCE
    ]


async def run_rollups(rows: Rows) -> None:
    """Roll up hours and days forever.

    The first run waits, because the store may not be open yet.
    """
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        try:
            while await roll_up_hours(rows) or await roll_up_days(rows):
                pass
        except (StoreDownError, RowsRejectedError) as error:
            log.warning("audit.rollup_failed", extra={"reason": str(error)})
