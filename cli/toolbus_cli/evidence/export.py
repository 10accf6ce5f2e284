"""Export of audit events to a file, page by page: JSON lines, OCSF events or Parquet."""

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from time import time
from typing import IO, Any

from toolbus_cli.errors import CommandError
from toolbus_common.contracts import EventsQuery, EventsReply
from toolbus_common.evidence.collection import Queries

SECONDS = 60.0  # for one page
LATEST = 4e9
PARQUET = "parquet"
_SPANS = {"m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """The selection and the format of an export; times are Unix seconds."""

    format: str
    since: float
    until: float
    events: tuple[str, ...]
    customers: tuple[str, ...]


async def take(
    channel: Queries, wanted: Wanted, path: Path, advance: Callable[[int, int], None]
) -> int:
    """Write the file and return the number of events; an existing file is replaced at the end.

    `advance` receives the number of events in each page, and the total number of events.
    """
    half = path.with_name(f".{path.name}.part")
    rows = total = 0
    try:
        with _writing(half, wanted.format) as add:
            async for page in pages(channel, wanted):
                total = max(total, page.total)
                rows += page.rows
                if page.data:
                    add(page.data)
                advance(page.rows, total)
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)
    return rows


async def pages(channel: Queries, wanted: Wanted) -> AsyncIterator[EventsReply]:
    """Yield the pages of the selected events in order."""
    query = EventsQuery(
        format=wanted.format,
        since=wanted.since,
        until=wanted.until,
        events=wanted.events,
        customers=wanted.customers,
    )
    while True:
        page = await channel.request(query, EventsReply, SECONDS)
        yield page
        if not page.next:
            return
        query = query.model_copy(update={"after": page.next})


def moment(text: str, otherwise: float) -> float:
    """Return the Unix time of a date, a time or a duration before now (7d, 12h, 30m).

    A time without a zone is in UTC. An empty text returns `otherwise`. Raises `CommandError`.
    """
    if not text:
        return otherwise
    if span := re.fullmatch(r"(\d{1,6})([mhd])", text):
        return time() - timedelta(**{_SPANS[span[2]]: int(span[1])}).total_seconds()
    try:
        time_given = datetime.fromisoformat(text)
    except ValueError as error:
        raise CommandError(
            f"'{text}' is not a time; use 2026-11-01, 2026-11-01T12:00:00 (UTC), or 7d."
        ) from error
    return (time_given if time_given.tzinfo else time_given.replace(tzinfo=UTC)).timestamp()


@contextmanager
def _writing(path: Path, form: str) -> Iterator[Callable[[bytes], None]]:
    """Yield a function that appends a page to the file: lines, or one Parquet row group."""
    if form != PARQUET:
        with path.open("wb") as file:
            yield lambda data: _added(file, data)
        return
    joined = _Joined(path)
    try:
        yield joined.add
    finally:
        joined.close()


def _added(file: IO[bytes], data: bytes) -> None:
    file.write(data)


class _Joined:
    """Writer that joins Parquet pages with the same columns into one file."""

    def __init__(self, path: Path) -> None:
        # Imported late, because other commands do not need it.
        try:
            self._arrow: Any = import_module("pyarrow")
            self._parquet: Any = import_module("pyarrow.parquet")
        except ModuleNotFoundError as error:
            raise CommandError(
                "Parquet needs the package pyarrow, which the container images do not contain; "
                "choose another --format, or run the command where it is installed."
            ) from error
        self._path = path
        self._writer: Any = None

    def add(self, data: bytes) -> None:
        rows = self._parquet.read_table(self._arrow.BufferReader(data))
        self._to(rows.schema).write_table(rows)

    def close(self) -> None:
        self._to(self._arrow.schema([])).close()  # without events, the file has no columns

    def _to(self, schema: Any) -> Any:
        if self._writer is None:
            self._writer = self._parquet.ParquetWriter(self._path, schema, compression="zstd")
        return self._writer
