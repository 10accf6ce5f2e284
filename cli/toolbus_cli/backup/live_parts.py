"""Parts of a running installation: frozen tables, and snapshots of streams."""

import asyncio
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryFile

from toolbus_cli.backup.archive import ChunkReader, ChunkWriter, files_below, pack_files
from toolbus_cli.backup.contents import LOCK, TABLES
from toolbus_cli.backup.errors import BackupError
from toolbus_cli.backup.manifest import CHUNK_BYTES, Chunk, Part
from toolbus_cli.backup.target import Target
from toolbus_common.contracts import FreezeReply, FreezeRequest
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.nats.snapshots import stream_snapshot as snapshots
from toolbus_common.nats.topology import EVENTS

FREEZE_SECONDS = 60.0
AUDIT = "audit"  # audit's consumer of EVENTS
_FOLDER, _PREFIX = "clickhouse", "backup"
_NOT_IN_STORE = ("data", "metadata")


@contextmanager
def only_one(root: Path) -> Iterator[None]:
    """Reject a concurrent backup, whose end would resume the consumer that the first paused.

    A rotation of keys is rejected too: it could remove a key that is not in the backup yet.

    Raises `BackupError`.
    """
    descriptor = os.open(root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise BackupError(
            f"Another backup of '{root}', or a rotation of its keys, is in progress; wait until it "
            "has ended."
        ) from error
    finally:
        os.close(descriptor)


async def others(bus: Bus) -> list[str]:
    """Return all streams except EVENTS."""
    return [each for each in await snapshots.streams_of(bus) if each != EVENTS]


async def pack_tables(root: Path, bus: Bus, target: Target) -> Part:
    """Freeze the tables, and write them as they would be in the directory of a stopped engine."""
    shadow = root / _FOLDER / "shadow"
    for left in shadow.glob(f"{_PREFIX}*"):  # of a command that was killed
        shutil.rmtree(left, ignore_errors=True)
    name = f"{_PREFIX}{token_hex(8)}"
    frozen = shadow / name
    request = FreezeRequest(name=name)
    try:
        await RequestReply(OPERATOR, bus).request(request, FreezeReply, FREEZE_SECONDS)
        files = _frozen_files(root / _FOLDER, frozen)
        return await asyncio.to_thread(pack_files, files, TABLES, target)
    finally:
        shutil.rmtree(frozen, ignore_errors=True)


def _frozen_files(engine: Path, frozen: Path) -> Iterator[tuple[Path, str]]:
    """Yield the definitions of the tables, and their frozen parts in place of the present ones."""
    there = [each for each in _NOT_IN_STORE if (engine / each).exists()]
    files = list(files_below(engine, there))
    files += [each for each in engine.glob("store/*/*/*") if each.is_file()]  # *.sql, version
    for path in files:
        yield path, f"{_FOLDER}/{path.relative_to(engine).as_posix()}"
    for path in files_below(frozen, ["store"]):
        yield path, f"{_FOLDER}/{path.relative_to(frozen).as_posix()}"


async def pack_stream(root: Path, bus: Bus, stream: str, target: Target) -> Part:
    """Write a snapshot of a stream as one part.

    The snapshot is written to a file first: NATS does not wait for a slow target.
    """
    name = f"stream-{stream.lower()}"
    with TemporaryFile(dir=root) as file:
        about = await snapshots.take(bus, stream, file)
        file.seek(0)
        chunks = ChunkWriter(target, f"{name}.snapshot")

        def store() -> tuple[Chunk, ...]:
            while piece := file.read(CHUNK_BYTES):
                chunks.write(piece)
            return chunks.finish()

        stored = await asyncio.to_thread(store)
    return Part(name, stored, 0, int(about["state"].get("bytes", 0)), about)


async def restore_stream(bus: Bus, part: Part, target: Target) -> None:
    """Restore a stream from its snapshot. Raises `BackupError` or `BusDownError`."""
    reader = ChunkReader(target, part.chunks)
    await snapshots.restore(bus, part.stream or {}, iter(reader.read, b""))
