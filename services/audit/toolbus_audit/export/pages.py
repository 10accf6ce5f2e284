"""Answer queries of the CLI for events: page by page, ordered by time, without state."""

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
    RowReader,
    intersection,
    read_piece,
    read_table,
)
from toolbus_audit.export.selection import Selection
from toolbus_common.contracts import EventsQuery, EventsReply
from toolbus_common.errors import InvalidError

MAX_BYTES = 6 << 20  # a message on the bus has at most 8 MiB
MAX_ROWS = 50_000
# First limit of the bytes of events' lines in a page. It depends on the format, because OCSF events
# are longer and Parquet is compressed.
_FIRST = {JSONL: 4 << 20, OCSF: 2 << 20, PARQUET: 16 << 20}
HOUR = 3_600_000_000  # microseconds
LATEST = 4e9
_PATTERN = re.compile(r"[a-z*?.]{1,64}")
_SECOND = 1e6


async def page(store: RowReader, query: EventsQuery) -> EventsReply:
    """Return the next page of events. Raises `InvalidError`."""
    _check(query)
    selected = _selection_of(query)
    total = await _count_total(store, selected) if not query.after else 0
    start = (max(int(query.since * _SECOND) - 1, 0), "\U0010ffff")
    after = _decode_cursor(query.after) if query.after else start
    hour = await _next_hour(store, selected, after)
    if hour is None:
        return EventsReply(rows=0, total=total)
    found = await _fitting_piece(
        store, _within(selected, after, hour), query.format, min(query.max_bytes, MAX_BYTES)
    )
    if found is None:
        return EventsReply(
            rows=0, total=total, next=_encode_cursor((hour + HOUR - 1, "\U0010ffff"))
        )
    return EventsReply(
        rows=found.rows, total=total, next=_encode_cursor(found.last), data=found.data
    )


def _check(query: EventsQuery) -> None:
    if query.format not in FORMATS:
        raise InvalidError(f"Unknown format '{query.format}'; use one of {', '.join(FORMATS)}.")
    for pattern in query.events:
        if not _PATTERN.fullmatch(pattern):
            raise InvalidError(
                f"'{pattern[:64]}' is not an event name or pattern; write call.denied or call.*."
            )


def _selection_of(query: EventsQuery) -> Selection:
    since, until = (max(min(each, LATEST), 0.0) for each in (query.since, query.until))
    return selection.select_events(query.events, query.customers).and_(
        "at >= fromUnixTimestamp64Micro({since:Int64}, 'UTC')"
        " AND at < fromUnixTimestamp64Micro({until:Int64}, 'UTC')",
        since=int(since * _SECOND),
        until=int(until * _SECOND),
    )


async def _count_total(store: RowReader, selected: Selection) -> int:
    sql = f"SELECT count() FROM events WHERE {selected.condition}"  # noqa: S608 - values are bound
    ((count,),) = await read_table(store, sql, selected.parameters)
    return int(count)


async def _next_hour(store: RowReader, selected: Selection, after: tuple[int, str]) -> int | None:
    """Return the start of the next row's hour; the table is sorted by hour."""
    rows = _from(selected, after)
    found = await read_table(
        store,
        "SELECT toUnixTimestamp64Micro(at) FROM events"  # noqa: S608 - values are bound
        f" WHERE {rows.condition} ORDER BY toStartOfHour(at) LIMIT 1",
        rows.parameters,
    )
    return int(found[0][0]) // HOUR * HOUR if found else None


def _from(selected: Selection, after: tuple[int, str]) -> Selection:
    from_ = selected.and_("at >= fromUnixTimestamp64Micro({lowest:Int64}, 'UTC')", lowest=after[0])
    return intersection(from_, TIME.after(after))


def _within(selected: Selection, after: tuple[int, str], hour: int) -> Selection:
    return _from(selected, after).and_(
        "at < fromUnixTimestamp64Micro({end:Int64}, 'UTC')", end=hour + HOUR
    )


async def _fitting_piece(
    store: RowReader, rows: Selection, form: str, largest: int
) -> Piece | None:
    """Return a piece of at least one event, with at most `largest` bytes."""
    max_bytes = _FIRST[form]
    while True:
        found = await read_piece(store, rows, TIME, form, max_bytes, MAX_ROWS)
        if found is None or len(found.data) <= largest:
            return found
        if found.rows == 1:
            raise InvalidError(
                f"The event {found.last[1]} is longer than {largest >> 20} MiB as {form}; "
                "exclude its name or its time, or export it as jsonl."
            )
        max_bytes //= 4


def _encode_cursor(cursor: tuple[Any, ...]) -> str:
    return msgspec.json.encode(cursor).decode()


def _decode_cursor(text: str) -> tuple[int, str]:
    try:
        return msgspec.json.decode(text, type=tuple[int, str])
    except msgspec.MsgspecError as error:
        raise InvalidError(
            "The `after` of the query is not a cursor; use `next` of the previous page."
        ) from error
