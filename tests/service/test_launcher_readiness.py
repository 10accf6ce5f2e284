"""The launcher and its services on a real bus: a slow service still becomes ready."""

import asyncio
import os
import sys

import pytest

from harness.audit.events import bus_of
from harness.waits import until
from toolbus_cli.launcher import process_group as fleets
from toolbus_cli.launcher.child_process import Program
from toolbus_cli.launcher.process_group import Fleet
from toolbus_common.contracts import ServiceStatus, StatusQuery
from toolbus_common.nats.connection import Bus
from toolbus_common.settings import Settings

SLOWLY = 4 * fleets.ASK_SECONDS


async def test_a_service_on_a_busy_machine_is_found_ready(
    settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleets, "READY_SECONDS", 30.0)
    held, other = os.pipe()
    group = Fleet(lambda *_: None, held)
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    group.start(Program("oauth", command, lambda *_: None))
    await until(lambda: group.pids, "its process")
    result = ServiceStatus(
        service="oauth", instance="i", pid=group.pids["oauth"], ready=True, since=0.0
    ).encode()
    answering: set[asyncio.Task[None]] = set()

    try:
        async with bus_of("oauth", settings) as bus:

            async def answer(reply: str) -> None:
                await asyncio.sleep(SLOWLY)
                await bus.publish(reply, result)

            await bus.subscribe(
                StatusQuery.SUBJECT,
                lambda _data, _subject, reply: answering.add(asyncio.create_task(answer(reply))),
            )
            await bus.settled()
            await group.wait_ready(operator, ["oauth"])
            await asyncio.gather(*answering)
    finally:
        await group.stop()
        os.close(held)
        os.close(other)
