"""Answers who takes events out by command: a page at a time, by time, each question for itself."""

import re
from typing import Any

import msgspec

from toolbus_audit.export import selection
from toolbus_audit.export.reader import (
    FORMATS,
    JSONL,
    OCSF,
    PARQUET,
    TIME,
    Piece,
    Reads,
    both,
    piece,
    table,
)
from toolbus_audit.export.selection import Selection
from toolbus_common.contracts import EventsQuery, EventsReply
from toolbus_common.errors import InvalidError

MOST_BYTES = 6 << 20  # the bus carries messages of 8 MiB
MOST_ROWS = 50_000
# Of events' lines in a page at first: events are longer, and Parquet is compressed.
_FIRST = {JSONL: 4 << 20, OCSF: 2 << 20, PARQUET: 16 << 20}
HOUR = 3_600_000_000  # microseconds
LATEST = 4e9
_PATTERN = re.compile(r"[a-z*?.]{1,64}")
_SECOND = 1e6


async def page(store: Reads, asked: EventsQuery) -> EventsReply:
    """The next page. Raises `InvalidError`."""
    _check(asked)
    chosen = _chosen(asked)
    told = await _total(store, chosen) if not asked.after else 0
    start = (max(int(asked.since * _SECOND) - 1, 0), "\U0010ffff")
    after = _read(asked.after) if asked.after else start
    hour = await _next_hour(store, chosen, after)
    if hour is None:
        return EventsReply(rows=0, total=told)
    found = await _fitting(store, _within(chosen, after, hour), asked.format)
    if found is None:
        return EventsReply(rows=0, total=told, next=_written((hour + HOUR - 1, "\U0010ffff")))
    return EventsReply(rows=found.rows, total=told, next=_written(found.last), data=found.data)


def _check(asked: EventsQuery) -> None:
    if asked.format not in FORMATS:
        raise InvalidError(f"There is no format '{asked.format}'; name {', '.join(FORMATS)}.")
    for pattern in asked.events:
        if not _PATTERN.fullmatch(pattern):
            raise InvalidError(f"'{pattern[:64]}' is no event's name; write call.denied or call.*.")


def _chosen(asked: EventsQuery) -> Selection:
    since, until = (max(min(each, LATEST), 0.0) for each in (asked.since, asked.until))
    return selection.of(asked.events, asked.customers).and_(
        "at >= fromUnixTimestamp64Micro({since:Int64}, 'UTC')"
        " AND at < fromUnixTimestamp64Micro({until:Int64}, 'UTC')",
        since=int(since * _SECOND),
        until=int(until * _SECOND),
    )


async def _total(store: Reads, chosen: Selection) -> int:
    sql = f"SELECT count() FROM events WHERE {chosen.condition}"  # noqa: S608 - values are bound
    ((count,),) = await table(store, sql, chosen.parameters)
    return int(count)


async def _next_hour(store: Reads, chosen: Selection, after: tuple[int, str]) -> int | None:
    """The beginning of the hour of the next row: the table lies in the order of hours."""
    rows = _behind(chosen, after)
    found = await table(
        store,
        "SELECT toUnixTimestamp64Micro(at) FROM events"  # noqa: S608 - values are bound
        f" WHERE {rows.condition} ORDER BY toStartOfHour(at) LIMIT 1",
        rows.parameters,
    )
    return int(found[0][0]) // HOUR * HOUR if found else None


def _behind(chosen: Selection, after: tuple[int, str]) -> Selection:
    from_ = chosen.and_("at >= fromUnixTimestamp64Micro({lowest:Int64}, 'UTC')", lowest=after[0])
    return both(from_, TIME.after(after))


def _within(chosen: Selection, after: tuple[int, str], hour: int) -> Selection:
    return _behind(chosen, after).and_(
        "at < fromUnixTimestamp64Micro({end:Int64}, 'UTC')", end=hour + HOUR
    )


async def _fitting(store: Reads, rows: Selection, form: str) -> Piece | None:
    """A piece that fits into one message, if need be of one event."""
    most_bytes = _FIRST[form]
    while True:
        found = await piece(store, rows, TIME, form, most_bytes, MOST_ROWS)
        if found is None or len(found.data) <= MOST_BYTES:
            return found
        if found.rows == 1:
            raise InvalidError(
                f"The event {found.last[1]} is longer than {MOST_BYTES >> 20} MiB as {form}; "
                "leave its name or its time out, or take it as jsonl."
            )
        most_bytes //= 4


def _written(place: tuple[Any, ...]) -> str:
    return msgspec.json.encode(place).decode()


def _read(text: str) -> tuple[int, str]:
    try:
        return msgspec.json.decode(text, type=tuple[int, str])
    except msgspec.MsgspecError as error:
        raise InvalidError("That is no place to go on from; begin without one.") from error
