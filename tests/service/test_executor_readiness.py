"""A replica of executor is not ready before it serves calls, so its predecessor may leave then."""

from collections.abc import AsyncIterator

import pytest

from harness.upstreams.faulty_server import FaultyServer
from harness.waits import until
from toolbus_common.config import Configuration, Server
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import CONFIG
from toolbus_common.service.process_context import ProcessContext
from toolbus_executor import main as executor


@pytest.fixture
async def server(operator: Bus) -> AsyncIterator[FaultyServer]:
    """Run a configured server that answers nothing yet."""
    made = FaultyServer()
    made.trouble, made.wholly = "hung", True
    await made.start()
    await _declare(operator, slow=made)
    yield made
    await made.close()


async def _declare(operator: Bus, **servers: FaultyServer) -> None:
    declared = {name: Server(url=each.url) for name, each in servers.items()}
    config = await operator.bucket(CONFIG)
    text = Configuration(servers=declared).model_dump_json()
    await config.put("configuration", text.encode())


async def test_a_replica_that_others_replace_is_ready_when_it_serves_every_server(
    server: FaultyServer,
) -> None:
    async with executor.build(ProcessContext(alone=True)).running() as replica:
        await until(lambda: server.connected, "it connects")
        assert replica.status().reason == "connecting to slow"
        server.released.set()
        await until(lambda: replica.is_ready, "it is ready")


@pytest.mark.usefixtures("server")
async def test_a_server_that_does_not_answer_delays_the_readiness_for_a_time_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(executor, "READY_SECONDS", 0.0)
    async with executor.build(ProcessContext(alone=True)).running() as replica:
        assert replica.is_ready


@pytest.mark.usefixtures("server")
async def test_a_gateway_in_one_process_is_ready_before_its_servers() -> None:
    async with executor.build(ProcessContext()).running() as replica:
        assert replica.is_ready


async def test_a_ready_replica_stays_ready_when_servers_are_added(
    server: FaultyServer, operator: Bus
) -> None:
    server.released.set()
    async with executor.build(ProcessContext(alone=True)).running() as replica:
        await until(lambda: replica.is_ready, "it is ready")
        server.released.clear()
        await _declare(operator, slow=server, more=server)
        await until(lambda: replica.status().details["servers"] == 2, "both are known")
        assert replica.is_ready
