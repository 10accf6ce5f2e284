"""Probes of idle servers, and circuit breakers for invalid answers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from harness.services.call_runner import AT_LOOPBACK, CallRunner
from harness.upstreams.faulty_server import FaultyServer
from harness.waits import until
from toolbus_common.circuit_breaker import Breaker, State
from toolbus_common.concurrency import end
from toolbus_common.contracts import BreakerClosed, BreakerOpened
from toolbus_common.errors import (
    BreakerOpenError,
    UpstreamInvalidError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
)
from toolbus_executor.transport import http1
from toolbus_executor.upstreams.mcp.http import HttpUpstream


@asynccontextmanager
async def probed(
    session: str = "", probe: float = 0.02, seconds: float = 60
) -> AsyncIterator[tuple[CallRunner, FaultyServer]]:
    """Run a server that is probed as the supervisor probes it."""
    server, client = FaultyServer(session=session), CallRunner(probe=probe, timeout=seconds)
    await server.start()
    try:
        await client.open(HttpUpstream(server.url, {}, client.news, AT_LOOPBACK))
        probing = asyncio.create_task(client.runner.health.watch(client.upstream))
        try:
            yield client, server
        finally:
            await end(probing)
            await client.close()
    finally:
        await server.close()


def state(client: CallRunner) -> Callable[[State], bool]:
    """Return a predicate on the breaker's state."""
    return lambda wanted: client.runner.breaker.circuit.state is wanted


@pytest.mark.parametrize(("session", "word"), [("", "server/discover"), ("s1", "ping")])
async def test_a_server_is_probed_with_the_method_of_its_family(session: str, word: str) -> None:
    async with probed(session) as (client, server):
        before = server.methods[word]
        await until(lambda: server.methods[word] >= before + 3, "three probes")
        assert server.call_count == 0
        assert client.runner.status()["probe"]["ok"] is True


async def test_a_dead_server_and_its_return_are_detected_before_a_call() -> None:
    async with probed() as (client, server):
        client.runner.breaker.circuit = Breaker(pause=60.0)
        server.trouble, server.wholly = "reset", True
        await until(lambda: state(client)(State.OPEN), "the breaker to open")
        assert isinstance((await client.call("plain")).error, BreakerOpenError)
        row = client.runner.status()
        assert row["probe"]["ok"] is False
        assert "broke the connection" in row["failures"][-1]["reason"]
        assert server.call_count == 0
        server.trouble = ""
        await until(lambda: state(client)(State.CLOSED), "the breaker to close")
        assert (await client.call("plain")).text == "done"
        events = [type(each) for each in client.events.published]
        assert (events.count(BreakerOpened), events.count(BreakerClosed)) == (1, 1)
        assert client.changed.is_set(), "its tools may have changed"


async def test_a_server_that_answers_only_probes_stays_behind_its_breaker() -> None:
    async with probed(seconds=0.2) as (client, server):
        client.runner.breaker.circuit = Breaker(pause=60.0)
        server.trouble = "hung"
        for _ in range(5):
            assert isinstance((await client.call("plain")).error, UpstreamTimeoutError)
        before = server.met
        await until(lambda: server.met >= before + 3, "answered probes")
        assert isinstance((await client.call("plain")).error, BreakerOpenError)


async def test_without_configuration_a_server_is_not_probed() -> None:
    async with probed(probe=0) as (client, server):
        before = server.met
        async with asyncio.timeout(60):
            await client.runner.health.watch(client.upstream)
        assert server.met == before


@pytest.mark.parametrize("trouble", ["nonsense", "garbage"])
async def test_invalid_answers_open_the_breaker(trouble: str) -> None:
    async with probed(probe=0) as (client, server):
        client.runner.breaker.circuit = Breaker(pause=60.0)
        server.trouble = trouble
        for _ in range(5):
            assert (await client.call("plain")).error.code in {"upstream_invalid", "upstream_dead"}
        assert isinstance((await client.call("plain")).error, BreakerOpenError)
        assert server.call_count == 5
        client.runner.breaker.circuit.retry_at = 0.0
        server.trouble = ""
        assert (await client.call("plain")).text == "done"
        assert state(client)(State.CLOSED)


async def test_an_invalid_answer_to_a_trial_call_leaves_the_breaker_open() -> None:
    async with probed(probe=0) as (client, server):
        client.runner.breaker.circuit = Breaker(pause=60.0)
        server.trouble = "nonsense"
        for _ in range(5):
            await client.call("plain")
        client.runner.breaker.circuit.retry_at = 0.0
        assert isinstance((await client.call("plain")).error, UpstreamInvalidError)
        assert isinstance((await client.call("plain")).error, BreakerOpenError)


async def test_a_too_large_result_is_no_failure_of_the_server() -> None:
    async with probed(probe=0) as (client, server):
        server.trouble = "boundless"
        for _ in range(6):
            assert isinstance((await client.call("plain")).error, UpstreamInvalidError)
        assert state(client)(State.CLOSED)


async def test_no_call_uses_a_connection_its_server_has_closed() -> None:
    async with probed(probe=0) as (client, server):
        assert (await client.call("plain")).text == "done"
        before = server.connected
        await server.hang_up()
        assert (await client.call("plain")).text == "done"
        assert (server.connected, client.runner.retries.made) == (before + 1, 0)


async def test_no_call_uses_a_connection_that_was_idle_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with probed(probe=0) as (client, server):
        monkeypatch.setattr(http1, "IDLE_SECONDS", 3600.0)
        await client.call("plain")
        before = server.connected
        await client.call("plain")
        assert server.connected == before
        monkeypatch.setattr(http1, "IDLE_SECONDS", 0.0)
        assert (await client.call("plain")).text == "done"
        assert server.connected == before + 1


async def test_a_regular_error_is_no_failure_of_the_server() -> None:
    async with probed(probe=0) as (client, server):
        server.trouble = "refusing"
        for _ in range(10):
            assert isinstance((await client.call("plain")).error, UpstreamRefusedError)
        assert state(client)(State.CLOSED)
        assert not client.runner.breaker.circuit.failures
