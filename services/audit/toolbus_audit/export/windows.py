"""Write one closed window of the stream as files, partitioned by date, hour and customer.

A window is a range of stream sequences whose events are all in the table. The names and contents
of its files depend on the window alone, so a repeated write replaces files and duplicates nothing.
"""

import gzip
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from urllib.parse import quote

import msgspec

from toolbus_audit.export.reader import (
    ARRIVAL,
    PARQUET,
    RowReader,
    intersection,
    read_piece,
    read_table,
)
from toolbus_audit.export.selection import Selection, select_events
from toolbus_audit.export.targets import Target
from toolbus_common.config import Export

MAX_BYTES = 32 << 20  # of events' lines in one file
MAX_ROWS = 250_000
_LAST_LINE = (1 << 16) - 1
_EXTENSIONS = {"jsonl": "jsonl.gz", "ocsf": "ocsf.jsonl.gz", PARQUET: "parquet"}


@dataclass(frozen=True, slots=True)
class Window:
    """Range of a stream: the sequences after `after`, up to and including `until`."""

    stream: str
    after: int
    until: int

    @property
    def name(self) -> str:
        """Part of file names. Alphabetical order is the order of windows."""
        return f"{self.stream}-{self.after:012d}-{self.until:012d}"


@dataclass(frozen=True, slots=True)
class File:
    """Entry of a file in the manifest."""

    path: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class _Partition:
    day: str
    hour: int
    customer: str

    @property
    def path(self) -> str:
        """Path in Hive style, from which query engines read partitions."""
        customer = quote(self.customer, safe="").replace(".", "%2E")
        return f"date={self.day}/hour={self.hour:02d}/customer={customer}"


async def write_window(
    store: RowReader, name: str, export: Export, window: Window, target: Target
) -> int:
    """Write the window's files, then the manifest that lists them; return the number of events.

    Raises `TargetError` or an error of the store. The caller then writes the window again.
    """
    selection = select_events(export.events, export.customers).and_(
        "stream = {stream:String} AND stream_seq > {after:UInt64} AND stream_seq <= {until:UInt64}",
        stream=window.stream,
        after=window.after,
        until=window.until,
    )
    files = [
        file
        for partition in await _partitions(store, selection)
        async for file in _write_partition(
            store, name, export, window, partition, selection, target
        )
    ]
    rows = sum(file.rows for file in files)
    manifest = {
        "export": name,
        "format": export.format,
        **asdict(window),
        "rows": rows,
        "files": [asdict(file) for file in files],
    }
    path = f"_manifests/{name}/{window.name}.json"
    await target.put(path, msgspec.json.format(msgspec.json.encode(manifest)))
    return rows


async def _partitions(store: RowReader, selection: Selection) -> list[_Partition]:
    found = await read_table(
        store,
        "SELECT toString(toDate(at)) AS day, toHour(at) AS hour, customer FROM events"  # noqa: S608
        f" WHERE {selection.condition} GROUP BY day, hour, customer ORDER BY day, hour, customer",
        selection.parameters,
    )
    return [_Partition(str(day), int(hour), str(customer)) for day, hour, customer in found]


async def _write_partition(
    store: RowReader,
    name: str,
    export: Export,
    window: Window,
    partition: _Partition,
    selection: Selection,
    target: Target,
) -> AsyncIterator[File]:
    selection = selection.and_(
        "toDate(at) = {day:Date} AND toHour(at) = {hour:UInt8} AND customer = {customer:String}",
        day=partition.day,
        hour=partition.hour,
        customer=partition.customer,
    )
    position: tuple[int, int] = (window.after, _LAST_LINE)
    number = 0
    while True:
        rest = intersection(selection, ARRIVAL.after(position))
        found = await read_piece(store, rest, ARRIVAL, export.format, MAX_BYTES, MAX_ROWS)
        if found is None:
            return
        position = (int(found.last[0]), int(found.last[1]))
        extension = _EXTENSIONS[export.format]
        path = f"{partition.path}/{name}-{window.name}-{number:04d}.{extension}"
        data = found.data if export.format == PARQUET else gzip.compress(found.data, 6, mtime=0)
        await target.put(path, data)
        yield File(path, found.rows, len(data), sha256(data).hexdigest())
        number += 1
