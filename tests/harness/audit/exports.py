"""Events in the real table, and exports of these events."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from harness.audit.events import allowed
from harness.audit.written_files import files_in
from harness.engines.migrated_tables import migrated
from toolbus_audit.clickhouse.row_mapper import read, token
from toolbus_audit.clickhouse.store import ClickHouse
from toolbus_audit.delivery.cursor import Cursor
from toolbus_audit.export.scheduler import ExportTask
from toolbus_audit.export.targets import Target
from toolbus_audit.settings import Settings as AuditSettings
from toolbus_common.concurrency import end
from toolbus_common.config import Export
from toolbus_common.contracts import Event
from toolbus_common.nats.kv_bucket import Bucket

LEASE = 0.4
_streams = count(1_763_000_000_000)


@dataclass
class Table:
    """The events table and the state of its stream."""

    store: ClickHouse
    stream: str = field(default_factory=lambda: str(next(_streams)))
    closed: int = 0
    ids: list[str] = field(default_factory=list)

    async def keep(self, *events: Event, sequence: int = 0, producer: str = "p") -> None:
        """Insert the events of one message, at the next sequence number or at `sequence`."""
        sequence = sequence or self.closed + 1
        lines = []
        for number, event in enumerate(events):
            body = msgspec.json.decode(event.encode())
            line = {"event": event.NAME, **body, "producer": producer, "seq": number}
            lines.append(msgspec.json.encode(line))
        rows, dead = read("tb.event.x.y", sequence, b"\n".join(lines), self.stream)
        assert not dead
        await self.store.insert("events", rows, f"{self.stream}-{token(rows)}")
        self.closed = max(self.closed, sequence)
        self.ids += [event.id for event in events]

    async def keep_intents(self, *numbers: int, **given: Any) -> None:
        """Insert one message per event."""
        for number in numbers:
            await self.keep(allowed(call_id=f"c{number}", **given))

    async def until(self) -> tuple[str, int]:
        """Return the end of the closed window."""
        return self.stream, self.closed


@contextmanager
def opened(directory: Path) -> Iterator[ClickHouse]:
    """Open the embedded engine in a directory. Each test has a separate stream."""
    store = ClickHouse(AuditSettings(state_dir=migrated(directory)))
    store._write_thread.submit(store._open).result()
    store._is_admitted = True
    try:
        yield store
    finally:
        store._write_thread.submit(store._close).result()
        store._write_thread.shutdown()
        store._query_thread.shutdown()


def exporting(
    at: Table, export: Export, bucket: Bucket, target: Target, holder: str = "one"
) -> ExportTask:
    """Return an export that becomes due when the test requests it."""
    cursor = Cursor(bucket, "export.lake", holder, LEASE)
    return ExportTask("lake", export, cursor, at.store, at.until, target, 0.05)


async def once(made: ExportTask) -> None:
    """Take the export's lease, and write all windows that are due."""

    async def work() -> None:
        await made.start()
        await made.export_closed()

    await made._cursor.run_while_held(work)


@asynccontextmanager
async def at_work(made: ExportTask) -> AsyncIterator[None]:
    """Run the export on its schedule until the context ends."""
    task = asyncio.create_task(made.run())
    try:
        yield
    finally:
        await end(task)


def files(directory: Path) -> dict[str, bytes]:
    """Return all finished files below a directory, by path."""
    return {
        path.relative_to(directory).as_posix(): content
        for path, content in files_in(directory)
        if path.name[0] != "."
    }


def manifests(found: Mapping[str, bytes]) -> list[Any]:
    """Return the manifests among the files, in order."""
    return [json.loads(found[path]) for path in sorted(found) if path.startswith("_manifests/")]


def lines(found: Mapping[str, bytes], ending: str = ".jsonl.gz") -> list[Any]:
    """Return the events of the JSON Lines files that the manifests list.

    A file can be missing if it was written during the listing.
    """
    named = [file["path"] for each in manifests(found) for file in each["files"]]
    return [
        json.loads(line)
        for path in named
        if path.endswith(ending) and path in found
        for line in gzip.decompress(found[path]).splitlines()
    ]
