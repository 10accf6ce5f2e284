"""The commands for dead letters and for backfill."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from harness.audit.events import bus_of, consumed
from harness.engines.migrated_tables import migrated
from harness.waits import until_async
from toolbus_audit.main import build
from toolbus_audit.settings import Settings as AuditSettings
from toolbus_cli.commands.audit.backfill import backfill, list_letters, retry, show
from toolbus_cli.errors import CommandError
from toolbus_common.nats.connection import Bus, Envelope
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.service.service import Service
from toolbus_common.settings import Settings

GOOD = (
    b'{"event":"call.allowed","producer":"p","seq":1,"id":"%b","at":1763708342.5,"customer":"acme"}'
)
Run = Callable[..., Any]


@pytest.fixture
async def audit(settings: Settings, operator: Bus) -> AsyncIterator[Service]:
    """Run audit after a message of two events with an invalid line between them."""
    own = AuditSettings(
        state_dir=migrated(settings.state_dir), nats_url=settings.nats_url, drain_seconds=5.0
    )
    async with bus_of("policy", settings) as bus:
        lines = [GOOD % b"one", b"{not json", GOOD % b"two"]
        await bus.store(Envelope("tb.event.call.allowed.acme", "m1", b"\n".join(lines)))
    async with build(ProcessContext(), own).running() as service:

        async def ready() -> bool:
            return service.status().ready

        await until_async(ready, "audit is ready")
        await until_async(lambda: consumed(operator), "everything is acknowledged")
        yield service


@pytest.fixture
def run(settings: Settings, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command in a thread, with an event loop of its own."""

    async def run_command(command: Run, *given: Any, as_json: bool = True, **options: Any) -> Any:
        options |= {"state_dir": settings.state_dir, "as_json": as_json}
        capsys.readouterr()
        await asyncio.to_thread(command, *given, **options)
        message = capsys.readouterr().out
        return json.loads(message) if as_json else message

    return run_command


async def test_a_dead_letter_is_listed_shown_and_retried(audit: Service, run: Run) -> None:
    assert audit.ready
    (letter,) = await run(list_letters, limit=10)
    assert letter["position"] == "1.1"
    assert letter["subject"] == "tb.event.call.allowed.acme"
    (letter_text,) = await run(show, "1.1")
    assert letter_text["raw"] == "{not json"
    assert "{not json" in await run(show, "1.1", as_json=False)
    assert await run(retry) == {"lines": 3, "written": 0, "unreadable": 1}
    with pytest.raises(CommandError, match="no dead letter at"):
        await run(show, "1.0")
    with pytest.raises(CommandError, match="is not a position"):
        await run(show, "first")


async def test_the_tables_are_filled_from_the_stream_and_from_an_export(
    audit: Service, run: Run, tmp_path: Path
) -> None:
    assert audit.ready
    assert await run(backfill) == {"lines": 3, "written": 0, "unreadable": 1}
    assert (await run(backfill, since="2030-01-01"))["lines"] == 0
    export = tmp_path / "november.jsonl.gz"
    with gzip.open(export, "wb") as file:
        file.write(b"\n".join([GOOD % b"two", GOOD % b"three"]) + b"\n")
    assert await run(backfill, export) == {"lines": 2, "written": 1, "unreadable": 0}
    assert "2 lines read, 0 missing events inserted." in await run(backfill, export, as_json=False)
    with pytest.raises(CommandError, match="applies to the stream"):
        await run(backfill, export, since="2026-11-01")
    with pytest.raises(CommandError, match="cannot be read"):
        await run(backfill, tmp_path / "nothing.jsonl")
    with pytest.raises(CommandError, match="not a day or time"):
        await run(backfill, since="yesterday")
