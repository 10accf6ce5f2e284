"""When a server is probed, and what a probe's end counts for."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from harness.waits import until
from toolbus_common.concurrency import end
from toolbus_common.errors import (
    ToolbusError,
    UpstreamDeadError,
    UpstreamInvalidError,
    UpstreamRefusedError,
)
from toolbus_executor.resilience.failure_log import GarbageError
from toolbus_executor.resilience.health_probe import Health


class Server:
    """A probed server; counts the probes and the checks for idleness."""

    def __init__(self, error: ToolbusError | None = None) -> None:
        self.call_count = 0
        self.probes = 0
        self.looks = 0
        self.found: list[bool] = []
        self._error = error

    async def probe(self) -> None:
        self.probes += 1
        if self._error is not None:
            raise self._error

    def unwell(self, error: ToolbusError) -> None:
        assert error is self._error
        self.found.append(False)

    def well(self) -> None:
        self.found.append(True)


async def watching(server: Server, idle: Callable[[], bool], ends: Awaitable[None]) -> Health:
    health = Health(0.001, server, idle)
    task = asyncio.create_task(health.watch(server))
    try:
        await ends
    finally:
        await end(task)
    return health


@pytest.mark.parametrize(("idle", "calls"), [(False, 0), (True, 1)], ids=["busy", "just called"])
async def test_a_server_in_use_is_not_probed(*, idle: bool, calls: int) -> None:
    server = Server()

    def is_idle() -> bool:
        server.looks += 1
        server.call_count += calls  # between two looks
        return idle

    await watching(server, is_idle, until(lambda: server.looks >= 5, "five looks at it"))
    assert server.probes == 0


@pytest.mark.parametrize(
    ("error", "well"),
    [
        (None, True),
        (UpstreamRefusedError("Method not found"), True),
        (UpstreamInvalidError("HTTP 401"), True),
        (UpstreamDeadError("gone"), False),
        (GarbageError("nonsense"), False),
    ],
)
async def test_the_error_of_a_probe_decides_the_health(
    error: ToolbusError | None, *, well: bool
) -> None:
    server = Server(error)
    health = await watching(
        server, lambda: True, until(lambda: len(server.found) >= 3, "three probes")
    )
    assert set(server.found) == {well}
    assert health.latest["ok"] is well
    assert health.latest["reason"] == ("" if well else str(error))


async def test_a_server_without_a_probe_is_left_alone() -> None:
    async with asyncio.timeout(60):
        await Health(0.001, Server(), lambda: True).watch(object())
