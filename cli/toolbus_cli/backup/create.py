"""Creation of a backup, of a stopped or a running installation."""

import asyncio
import io
import tarfile
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import msgspec

from toolbus_cli.backup.archive import add, pack
from toolbus_cli.backup.contents import CONTENTS, small_files, tops_of
from toolbus_cli.backup.errors import BackupError
from toolbus_cli.backup.live_parts import AUDIT, only_one, others, pack_stream, pack_tables
from toolbus_cli.backup.manifest import (
    FILE,
    FORMAT,
    RUNNING,
    STOPPED,
    Chunk,
    Manifest,
    digest_without_keys,
    encoded,
    versions,
)
from toolbus_cli.backup.sealed_keys import Lock
from toolbus_cli.backup.target import Target
from toolbus_cli.state_dir import State
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.snapshots.consumer_pause import paused
from toolbus_common.nats.topology import EVENTS
from toolbus_common.settings import EVENTS_FILE, MOVED_EVENTS_FILE

KEYS = "state/"  # the files of the state directory in the sealed archive
CONFIGURATION = "toolbus.yaml"  # the configuration file in the sealed archive
STORE_SECONDS = 60.0  # in which audit stores what it has received
BOUND = "manifest.sha256"  # the digest of the manifest in the sealed archive


def create(state: State, config: Path | None, target: Target, lock: Lock) -> Manifest:
    """Write a backup of an installation that is stopped; return its manifest.

    The caller holds the lock of the state directory. Raises `BackupError`.
    """
    now = _now()
    tops = _required_tops(state)
    small_files(state.root)  # refuses links before anything is written
    target.prepare()
    parts = tuple(
        pack(state.root, tops[content.part], content.part, target)
        for content in CONTENTS
        if tops[content.part]
    )
    manifest = Manifest(FORMAT, now, now, STOPPED, lock.kind, versions(), parts)
    return _finish(state, config, target, lock, manifest)


async def create_running(
    state: State, config: Path | None, target: Target, lock: Lock, bus: Bus
) -> Manifest:
    """Write a backup of an installation that runs; return its manifest. Raises `BackupError`.

    The stream of events is copied last, so that it has every event of the other parts.
    """
    with only_one(state.root):
        return await _create_running(state, config, target, lock, bus)


async def _create_running(
    state: State, config: Path | None, target: Target, lock: Lock, bus: Bus
) -> Manifest:
    began = _now()
    _required_tops(state)
    small_files(state.root)
    await asyncio.to_thread(target.prepare)
    # The consumer of audit ends where the tables end: what came later is delivered after a restore.
    async with paused(bus, EVENTS, AUDIT, STORE_SECONDS):
        tables = await pack_tables(state.root, bus, target)
        buckets = [await pack_stream(state.root, bus, each, target) for each in await others(bus)]
        until = _now()
        events = await pack_stream(state.root, bus, EVENTS, target)
    parts = (tables, *buckets, events)
    manifest = Manifest(FORMAT, began, until, RUNNING, lock.kind, versions(), parts)
    return await asyncio.to_thread(_finish, state, config, target, lock, manifest)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _required_tops(state: State) -> dict[str, list[str]]:
    if (state.root / EVENTS_FILE).exists():
        raise BackupError(
            f"'{state.root / EVENTS_FILE}' has events of the lite form, which has no backup. Start "
            "'toolbus up' without --lite, and repeat this command when the file has been moved to "
            f"ClickHouse (it is then named '{MOVED_EVENTS_FILE}')."
        )
    tops = {content.part: tops_of(state.root, content) for content in CONTENTS}
    for content in CONTENTS:
        if content.is_required and not tops[content.part]:
            raise BackupError(
                f"'{state.root}' has no '{content.paths[0]}' ({content.holds}): it is not the "
                "state directory of 'toolbus up', or that data is in an external server, which "
                "this command does not back up (docs/how-to/backup.md)."
            )
    return tops


def _finish(
    state: State, config: Path | None, target: Target, lock: Lock, manifest: Manifest
) -> Manifest:
    """Write the sealed keys and the manifest."""
    sealed = lock.seal(_archive(state.root, small_files(state.root), config, manifest))
    chunks = []
    for name, data in sealed.items():
        target.put(name, data)
        chunks.append(Chunk(name, len(data), sha256(data).hexdigest()))
    manifest = msgspec.structs.replace(manifest, keys=tuple(chunks))
    target.put(FILE, encoded(manifest))  # last: without it, the files are not a backup
    return manifest


def _archive(root: Path, files: list[Path], config: Path | None, manifest: Manifest) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(mode="w", fileobj=archive, format=tarfile.GNU_FORMAT) as tar:
        bound = digest_without_keys(manifest)
        entry = tarfile.TarInfo(BOUND)
        entry.size = len(bound)
        tar.addfile(entry, io.BytesIO(bound))
        for path in files:
            add(tar, path, f"{KEYS}{path.relative_to(root).as_posix()}")
        if config is not None:
            add(tar, config.resolve(), CONFIGURATION)
    return archive.getvalue()
