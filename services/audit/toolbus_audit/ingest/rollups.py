"""Adds up the events of hours and days that are over, so that questions about spans need not.

A sum holds for as long as it is made of as many events as there are (the view `hours`), and a day's
for as long as it is made of its hours' sums that hold (`days`): this service may be killed at any
moment, and events may come late; what does not hold is added up from what it is made of by whoever
asks, until it is added up here.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from itertools import accumulate
from time import time
from typing import Any

from toolbus_audit.clickhouse.errors import StoreDownError, UnreadableError
from toolbus_common.contracts.queries.sql_text import quoted

log = logging.getLogger(__name__)

EVERY_SECONDS = 60.0
SETTLED_SECONDS = 120  # after its end, an hour's last events are on their way
HOURS_AT_ONCE = 24
DAYS_AT_ONCE = 500  # customers' days
EVENTS_AT_ONCE = 2_000_000
_DUE = f"""
SELECT toUnixTimestamp(hour), sum(events) FROM hours
WHERE NOT holds AND hour < toStartOfHour(now() - toIntervalSecond({SETTLED_SECONDS}))
GROUP BY hour ORDER BY hour LIMIT {HOURS_AT_ONCE}
"""  # noqa: S608 - numbers of ours
_SUM = """
INSERT INTO sums (hour, customer, team, key, server, tool, event, code, events, charge,
    corrected,
    errors, spent_tokens, classic_tokens, latency, version)
SELECT hour, customer, team, key, server, tool, event, code, events, charge,
    corrected, errors,
    spent_tokens, classic_tokens, latency, {version}
FROM sums_anew WHERE hour IN ({hours})
"""
# Told last, of what was written: a kill before leaves sums that nobody asks.
_TELL = """
INSERT INTO added_up (hour, customer, events, version)
SELECT hour, customer, sum(events), {version} FROM sums
WHERE version = {version} AND hour IN ({hours}) GROUP BY hour, customer
"""
_DAYS_DUE = f"""
SELECT toString(day), customer, made_of, events FROM days
WHERE whole AND NOT holds AND day < toDate(now('UTC')) ORDER BY day LIMIT {DAYS_AT_ONCE}
"""  # noqa: S608 - numbers of ours
_SUM_DAYS = """
INSERT INTO sums_of_days (day, customer, team, key, server, tool, event, code, events, charge,
    corrected,
    errors, spent_tokens, classic_tokens, latency, version)
SELECT toDate(hour) AS day, customer, team, key, server, tool, event, code, sum(events),
    sum(charge), sum(corrected), sum(errors), sum(spent_tokens), sum(classic_tokens),
    quantilesTDigestMergeState(0.5, 0.9, 0.95, 0.99)(latency), {version}
FROM sums
WHERE (toDate(hour), customer) IN (SELECT day, customer FROM {days})
    AND (hour, customer, version) IN (SELECT hour, customer, version FROM hours WHERE holds)
GROUP BY day, customer, team, key, server, tool, event, code
"""
# `made_of` is of before they were written: an hour added up anew meanwhile makes it another.
_TELL_DAYS = """
INSERT INTO days_added_up (day, customer, events, made_of, version)
SELECT written.day, written.customer, written.events, due.made_of, {version}
FROM (
    SELECT day, customer, sum(events) AS events FROM sums_of_days WHERE version = {version}
    GROUP BY day, customer
) AS written
INNER JOIN {days} AS due ON written.day = due.day AND written.customer = due.customer
"""

Rows = Callable[[str], Awaitable[list[tuple[Any, ...]]]]


async def add_up(rows: Rows) -> int:
    """Add up the oldest hours that are due; how many. Two may do so at once."""
    due = _few(await rows(_DUE))
    if due:
        hours = ", ".join(f"toDateTime({hour}, 'UTC')" for hour, _ in due)
        version = int(time() * 1e6)
        await rows(_SUM.format(hours=hours, version=version))
        await rows(_TELL.format(hours=hours, version=version))
    return len(due)


async def add_up_days(rows: Rows) -> int:
    """Add up customers' oldest days of which every hour is; how many. Two may do so at once."""
    due = _few(await rows(_DAYS_DUE))
    if due:
        told = ", ".join(f"('{day}', {quoted(customer)}, {of})" for day, customer, of, _ in due)
        days = f"values('day Date, customer String, made_of UInt64', {told})"
        version = int(time() * 1e6)
        await rows(_SUM_DAYS.format(days=days, version=version))
        await rows(_TELL_DAYS.format(days=days, version=version))
    return len(due)


def _few(due: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The first, as many as are added up in one go: by their events, told last; one at least."""
    together = accumulate(each[-1] for each in due)
    return [
        each
        for number, (each, events) in enumerate(zip(due, together, strict=True))
        if number == 0 or events <= EVENTS_AT_ONCE
    ]


async def keep_adding_up(rows: Rows) -> None:
    """For as long as the service runs; not at once, when the store has yet to be opened."""
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        try:
            while await add_up(rows) or await add_up_days(rows):
                pass
        except (StoreDownError, UnreadableError) as error:
            log.warning("audit.not_added_up", extra={"reason": str(error)})
