"""Idle servers are asked whether they are there, and nonsense counts like silence."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from harness.services.call_runner import AT_LOOPBACK, CallRunner
from harness.upstreams.faulty_server import FaultyServer
from harness.waits import until
from toolbus_common.concurrency import end
from toolbus_common.contracts import BreakerClosed, BreakerOpened
from toolbus_common.errors import (
    BreakerOpenError,
    UpstreamFaultError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
)
from toolbus_executor.resilience.circuit_breaker import Breaker, State
from toolbus_executor.transport import http1
from toolbus_executor.upstreams.mcp.http import HttpUpstream


@asynccontextmanager
async def probed(
    session: str = "", probe: float = 0.02, seconds: float = 60
) -> AsyncIterator[tuple[CallRunner, FaultyServer]]:
    """A runner over a server that is probed as a keeper has it, and the server."""
    server, bench = FaultyServer(session=session), CallRunner(probe=probe, timeout=seconds)
    await server.start()
    try:
        await bench.open(HttpUpstream(server.url, {}, bench.news, AT_LOOPBACK))
        probing = asyncio.create_task(bench.runner.health.watch(bench.upstream))
        try:
            yield bench, server
        finally:
            await end(probing)
            await bench.close()
    finally:
        await server.close()


def state(bench: CallRunner) -> Callable[[State], bool]:
    """Whether the breaker is in a state."""
    return lambda wanted: bench.runner.breaker.circuit.state is wanted


@pytest.mark.parametrize(("session", "word"), [("", "server/discover"), ("s1", "ping")])
async def test_a_server_is_probed_in_the_words_of_its_family(session: str, word: str) -> None:
    async with probed(session) as (bench, server):
        before = server.methods[word]
        await until(lambda: server.methods[word] >= before + 3, "three probes")
        assert server.call_count == 0
        assert bench.runner.status()["probe"]["ok"] is True


async def test_a_dead_server_is_known_before_a_call_meets_it_and_so_is_its_return() -> None:
    async with probed() as (bench, server):
        bench.runner.breaker.circuit = Breaker(pause=60.0)
        server.trouble, server.wholly = "reset", True
        await until(lambda: state(bench)(State.OPEN), "the breaker to open")
        assert isinstance((await bench.call("plain")).error, BreakerOpenError)
        row = bench.runner.status()
        assert row["probe"]["ok"] is False
        assert "broke the connection" in row["failures"][-1]["reason"]
        assert server.call_count == 0
        server.trouble = ""
        await until(lambda: state(bench)(State.CLOSED), "the breaker to close")
        assert (await bench.call("plain")).text == "done"
        events = [type(each) for each in bench.events.published]
        assert (events.count(BreakerOpened), events.count(BreakerClosed)) == (1, 1)
        assert bench.changed.is_set(), "it may offer other tools now"


async def test_a_server_that_answers_probes_and_no_calls_stays_behind_its_breaker() -> None:
    async with probed(seconds=0.2) as (bench, server):
        bench.runner.breaker.circuit = Breaker(pause=60.0)
        server.trouble = "hung"
        for _ in range(5):
            assert isinstance((await bench.call("plain")).error, UpstreamTimeoutError)
        before = server.met
        await until(lambda: server.met >= before + 3, "probes it answers")
        assert isinstance((await bench.call("plain")).error, BreakerOpenError)


async def test_who_asked_for_no_probes_gets_none() -> None:
    async with probed(probe=0) as (bench, server):
        before = server.met
        async with asyncio.timeout(60):
            await bench.runner.health.watch(bench.upstream)
        assert server.met == before


@pytest.mark.parametrize("trouble", ["nonsense", "garbage"])
async def test_a_server_that_answers_nonsense_opens_its_breaker(trouble: str) -> None:
    async with probed(probe=0) as (bench, server):
        bench.runner.breaker.circuit = Breaker(pause=60.0)
        server.trouble = trouble
        for _ in range(5):
            assert (await bench.call("plain")).error.code in {"upstream_fault", "upstream_dead"}
        assert isinstance((await bench.call("plain")).error, BreakerOpenError)
        assert server.call_count == 5
        bench.runner.breaker.circuit.retry_at = 0.0
        server.trouble = ""
        assert (await bench.call("plain")).text == "done"
        assert state(bench)(State.CLOSED)


async def test_a_probe_call_that_is_answered_with_nonsense_keeps_the_breaker_open() -> None:
    async with probed(probe=0) as (bench, server):
        bench.runner.breaker.circuit = Breaker(pause=60.0)
        server.trouble = "nonsense"
        for _ in range(5):
            await bench.call("plain")
        bench.runner.breaker.circuit.retry_at = 0.0
        assert isinstance((await bench.call("plain")).error, UpstreamFaultError)
        assert isinstance((await bench.call("plain")).error, BreakerOpenError)


async def test_a_result_that_is_too_large_is_no_failure_of_the_server() -> None:
    async with probed(probe=0) as (bench, server):
        server.trouble = "boundless"
        for _ in range(6):
            assert isinstance((await bench.call("plain")).error, UpstreamFaultError)
        assert state(bench)(State.CLOSED)


async def test_no_call_meets_a_connection_its_server_has_closed() -> None:
    async with probed(probe=0) as (bench, server):
        assert (await bench.call("plain")).text == "done"
        before = server.connected
        await server.hang_up()
        assert (await bench.call("plain")).text == "done"
        assert (server.connected, bench.runner.retries.made) == (before + 1, 0)


async def test_no_call_meets_a_connection_that_was_idle_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with probed(probe=0) as (bench, server):
        monkeypatch.setattr(http1, "IDLE_SECONDS", 3600.0)
        await bench.call("plain")
        before = server.connected
        await bench.call("plain")
        assert server.connected == before
        monkeypatch.setattr(http1, "IDLE_SECONDS", 0.0)
        assert (await bench.call("plain")).text == "done"
        assert server.connected == before + 1


async def test_an_error_told_in_good_order_is_no_failure_of_the_server() -> None:
    async with probed(probe=0) as (bench, server):
        server.trouble = "refusing"
        for _ in range(10):
            assert isinstance((await bench.call("plain")).error, UpstreamRefusedError)
        assert state(bench)(State.CLOSED)
        assert not bench.runner.breaker.circuit.failing
