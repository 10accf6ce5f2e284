"""Restore of streams into the directory of a NATS server that runs only for the restore."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toolbus_cli.backup.errors import BackupError
from toolbus_cli.backup.live_parts import AUDIT, restore_stream
from toolbus_cli.backup.manifest import Part
from toolbus_cli.backup.target import Target
from toolbus_cli.installation import operator_bus
from toolbus_cli.launcher import engines
from toolbus_cli.launcher.engines import Engine
from toolbus_cli.state_dir import State
from toolbus_common.errors import BusDownError
from toolbus_common.nats.snapshots.consumer_pause import resume
from toolbus_common.nats.topology import EVENTS

START_SECONDS, STOP_SECONDS = 15.0, 60.0


def restore_streams(root: Path, parts: list[Part], target: Target) -> None:
    """Restore snapshots into a state directory that has its keys. Raises `BackupError`."""
    state = State(root)
    engine = engines.nats(state, "", None, lambda _name, _line: None)
    with _running(engine):
        try:
            asyncio.run(_restore(state, engine.url, parts, target))
        except BusDownError as error:
            raise BackupError(error.reason) from error
    (root / "nats" / "nats.conf").unlink()  # it has this path; the next start writes it again


async def _restore(state: State, url: str, parts: list[Part], target: Target) -> None:
    bus = operator_bus(state, url)
    await bus.open(START_SECONDS)
    try:
        for part in parts:
            await restore_stream(bus, part, target)
        await resume(bus, EVENTS, AUDIT)  # it was paused in the snapshot
    finally:
        await bus.close()


@contextmanager
def _running(engine: Engine) -> Iterator[None]:
    assert engine.program is not None  # noqa: S101 - no external server was given
    environment = {**os.environ, **engine.program.environment}
    with subprocess.Popen(  # noqa: S603 - the installed server
        engine.program.command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
