"""Writes one closed window of the stream as files, each in the hour and customer of its events.

A window is a span of positions in the stream of which everything is in the table. Names and
contents follow from it, so that writing it again writes the same: nothing is there twice.
"""

import gzip
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from urllib.parse import quote

import msgspec

from toolbus_audit.export.reader import ARRIVAL, PARQUET, Reads, both, piece, table
from toolbus_audit.export.selection import Selection, of
from toolbus_audit.export.targets import Target
from toolbus_common.config import Export

MOST_BYTES = 32 << 20  # of events' lines in one file
MOST_ROWS = 250_000
_LAST_LINE = (1 << 16) - 1
_ENDINGS = {"jsonl": "jsonl.gz", "ocsf": "ocsf.jsonl.gz", PARQUET: "parquet"}


@dataclass(frozen=True, slots=True)
class Window:
    """What lies behind one message of a stream, up to another."""

    stream: str
    after: int
    until: int

    @property
    def name(self) -> str:
        """As files are called; later ones come later by name."""
        return f"{self.stream}-{self.after:012d}-{self.until:012d}"


@dataclass(frozen=True, slots=True)
class File:
    """One file, as the manifest has it."""

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
        """As engines read partitions from paths."""
        customer = quote(self.customer, safe="").replace(".", "%2E")
        return f"date={self.day}/hour={self.hour:02d}/customer={customer}"


async def write(store: Reads, name: str, export: Export, window: Window, target: Target) -> int:
    """Write the window's files, and then the manifest that says they are all; how many events.

    Raises `PlaceError`, or what the store raises; it is to be written again then.
    """
    chosen = of(export.events, export.customers).and_(
        "stream = {stream:String} AND stream_seq > {after:UInt64} AND stream_seq <= {until:UInt64}",
        stream=window.stream,
        after=window.after,
        until=window.until,
    )
    files = [
        file
        for partition in await _partitions(store, chosen)
        async for file in _written(store, name, export, window, partition, chosen, target)
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


async def _partitions(store: Reads, chosen: Selection) -> list[_Partition]:
    found = await table(
        store,
        "SELECT toString(toDate(at)) AS day, toHour(at) AS hour, customer FROM events"  # noqa: S608
        f" WHERE {chosen.condition} GROUP BY day, hour, customer ORDER BY day, hour, customer",
        chosen.parameters,
    )
    return [_Partition(str(day), int(hour), str(customer)) for day, hour, customer in found]


async def _written(
    store: Reads,
    name: str,
    export: Export,
    window: Window,
    partition: _Partition,
    chosen: Selection,
    target: Target,
) -> AsyncIterator[File]:
    chosen = chosen.and_(
        "toDate(at) = {day:Date} AND toHour(at) = {hour:UInt8} AND customer = {customer:String}",
        day=partition.day,
        hour=partition.hour,
        customer=partition.customer,
    )
    place: tuple[int, int] = (window.after, _LAST_LINE)
    number = 0
    while True:
        rest = both(chosen, ARRIVAL.after(place))
        found = await piece(store, rest, ARRIVAL, export.format, MOST_BYTES, MOST_ROWS)
        if found is None:
            return
        place = (int(found.last[0]), int(found.last[1]))
        ending = _ENDINGS[export.format]
        path = f"{partition.path}/{name}-{window.name}-{number:04d}.{ending}"
        data = found.data if export.format == PARQUET else gzip.compress(found.data, 6, mtime=0)
        await target.put(path, data)
        yield File(path, found.rows, len(data), sha256(data).hexdigest())
        number += 1
