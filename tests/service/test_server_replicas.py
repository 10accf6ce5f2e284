"""Servers with several replicas: balancing, ejection, recovery, different definitions."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest

from harness.clients.bus_operator import servers_of
from harness.services.call_runner import AT_LOOPBACK, CallRunner
from harness.upstreams.faulty_server import TOOLS, FaultyServer
from harness.waits import until, until_async
from toolbus_common.circuit_breaker import Breaker
from toolbus_common.concurrency import end
from toolbus_common.config import Configuration, Server
from toolbus_common.contracts import BreakerClosed, BreakerOpened
from toolbus_common.errors import (
    BreakerOpenError,
    UpstreamDeadError,
    UpstreamTimeoutError,
)
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import CONFIG
from toolbus_common.service.process_context import ProcessContext
from toolbus_executor.main import build
from toolbus_executor.transport.dialer_factory import DialerFactory
from toolbus_executor.upstreams.replicas import outlier_ejection as ejecting
from toolbus_executor.upstreams.replicas.outlier_ejection import FAILURES
from toolbus_executor.upstreams.replicas.upstream import ReplicatedUpstream

DIALERS = DialerFactory(AT_LOOPBACK.egress)

TWICE = {"twice": {"idempotent": True}}
CHANGED = [TOOLS[0] | {"description": "now other"}, TOOLS[1]]
ELICITATION = '{"elicitation": {}}'  # the capabilities of a caller that can answer requests


class Several(CallRunner):
    """A server with replicas whose lists are refreshed as the supervisor refreshes them."""

    def __init__(self, servers: list[FaultyServer], weights: list[int], **declared: Any) -> None:
        super().__init__(tools=TWICE, **declared)
        self.servers = servers
        replicas = [
            {"url": server.url, "weight": weight}
            for server, weight in zip(servers, weights, strict=True)
        ]
        fields = {"probe": 0, **declared}
        self.server = Server(replicas=replicas, **fields)
        self._listing = False

    async def start(self) -> None:
        """Connect to all replicas."""
        await self.open(ReplicatedUpstream("s", self.server, self.news, self.events, DIALERS, {}))
        self._keeping = asyncio.create_task(self._keep())
        await until(self.settled, "all of them in place")

    async def stop(self) -> None:
        """Disconnect."""
        await end(self._keeping)
        await self.close()

    def rows(self) -> list[dict[str, Any]]:
        """Return the status of each replica."""
        found: list[dict[str, Any]] = self.runner.status()["replicas"]
        return found

    async def calls(self, count: int, tool: str = "plain", **more: Any) -> list[Any]:
        """Make this number of calls, one after the other; return their final replies."""
        items = [await self.call(tool, call_id=f"{tool}{n}", **more) for n in range(count)]
        return [each.frames[-1] for each in items]

    def calls_by_replica(self) -> list[int]:
        """Return the number of calls that reached each replica."""
        return [each.call_count for each in self.servers]

    def settled(self) -> bool:
        """Return whether all replicas are in place, and no list is about to be refreshed."""
        looking = self.changed.is_set() or self._listing
        return not looking and all(each["state"] == "active" for each in self.rows())

    async def _keep(self) -> None:
        while True:
            await self.changed.wait()
            self._listing = True
            self.changed.clear()
            with suppress(UpstreamDeadError, TimeoutError):
                await self._relist()
            self._listing = False


@asynccontextmanager
async def several(
    weights: list[int], *, sessions: bool = False, **declared: Any
) -> AsyncIterator[Several]:
    async with AsyncExitStack() as stack:
        servers = [FaultyServer(session=f"s{number}" * sessions) for number in range(len(weights))]
        for server in servers:
            await server.start()
            stack.push_async_callback(server.close)
        client = Several(servers, weights, **declared)
        await client.start()
        stack.push_async_callback(client.stop)
        yield client


def ends(replies: list[Any]) -> set[str]:
    """Return the error codes of final replies, empty for results."""
    return {getattr(getattr(each, "error", None), "code", "") for each in replies}


async def test_calls_go_to_replicas_by_weight() -> None:
    async with several([1, 3]) as client:
        assert ends(await client.calls(40)) == {""}
        assert client.calls_by_replica() == [10, 30]


async def test_a_failing_replica_is_ejected_and_the_server_continues() -> None:
    async with several([1, 1, 1]) as client:
        client.servers[0].trouble = "reset"
        assert ends(await client.calls(3 * FAILURES)) == {"", "upstream_dead"}
        before = client.calls_by_replica()
        assert before[0] == FAILURES
        assert ends(await client.calls(20)) == {""}, "calls that fail after the ejection"
        assert client.calls_by_replica()[0] == before[0]
        row = client.rows()[0]
        assert (row["state"], row["ejections"], len(row["failures"])) == ("ejected", 1, FAILURES)
        assert client.runner.status()["breaker"] == "closed"
        (event,) = [each for each in client.events.published if isinstance(each, BreakerOpened)]
        assert event.replica == row["replica"] == f"127.0.0.1:{client.servers[0].port}/mcp"


async def test_many_concurrent_failures_of_one_replica_do_not_open_the_servers_breaker() -> None:
    async with several([1, 1, 1], timeout=5) as client:
        client.servers[0].trouble = "hung"
        result = await asyncio.gather(*(client.call("plain", call_id=f"c{n}") for n in range(30)))
        codes = [getattr(getattr(each.frames[-1], "error", None), "code", "") for each in result]
        assert codes.count("upstream_timeout") == 10
        assert client.runner.status()["breaker"] == "closed"
        assert ends(await client.calls(10)) == {""}


async def test_a_hanging_replica_does_not_use_every_concurrency_slot() -> None:
    async with several([1, 1, 1], timeout=120) as client:
        hung = client.servers[0]
        hung.trouble = "hung"
        calls = [asyncio.create_task(client.call("plain", call_id=f"c{n}")) for n in range(90)]
        await until(
            lambda: sum(each.done() for each in calls) + hung.call_count == 90, "the others"
        )
        assert 0 < hung.call_count < client.runner.bulkhead.slots
        hung.released.set()
        result = await asyncio.gather(*calls)
        assert ends([each.frames[-1] for each in result]) == {""}


async def test_a_retryable_call_is_retried_at_another_replica() -> None:
    async with several([1, 1]) as client:
        client.servers[0].trouble = "reset"
        assert ends(await client.calls(2, "twice")) == {""}
        assert client.runner.retries.made == 1
        assert client.calls_by_replica() == [1, 2]


async def test_an_unsent_call_of_a_stopped_replica_goes_to_another() -> None:
    async with several([1, 1]) as client:
        await client.servers[0].close()
        assert ends(await client.calls(2)) == {""}
        assert client.calls_by_replica() == [0, 2]


async def test_when_all_fail_half_of_them_stay_and_the_servers_breaker_opens() -> None:
    async with several([1, 1, 1, 1]) as client:
        for server in client.servers:
            server.trouble = "failing"
        result = await client.calls(30)
        assert isinstance(result[-1].error, BreakerOpenError)
        client.runner.breaker.circuit = Breaker(threshold=10_000)
        assert ends(await client.calls(30)) == {"upstream_dead"}
        states = [each["state"] for each in client.rows()]
        assert sorted(states) == ["active", "active", "ejected", "ejected"]


async def test_an_ejected_replica_is_probed_compared_and_tried_before_it_returns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ejecting, "BASE", 0.05)
    async with several([1, 1], probe=0.02) as client:
        bad = client.servers[0]
        bad.trouble, bad.wholly = "reset", True
        await client.calls(2 * FAILURES)
        await until(lambda: client.rows()[0]["ejections"], "the ejection")
        request, listed = bad.call_count, bad.methods["tools/list"]
        probes = bad.met
        await until(lambda: bad.met >= probes + 3, "failed probes")
        assert ends(await client.calls(10)) == {""}
        assert bad.call_count == request, "no call before a successful probe"
        bad.trouble = ""
        await until(lambda: client.rows()[0]["state"] == "on trial", "its trial")
        await until(lambda: bad.methods["tools/list"] > listed, "another listing")
        await until(lambda: client.upstream._replicas[0].compared, "the comparison")  # type: ignore[attr-defined]
        assert ends(await client.calls(10)) == {""}
        assert client.rows()[0]["state"] == "active"
        assert bad.call_count > request
        (event,) = [each for each in client.events.published if isinstance(each, BreakerClosed)]
        assert event.replica == client.rows()[0]["replica"]


async def test_an_idle_replica_that_dies_is_ejected_before_a_call() -> None:
    async with several([1, 1], probe=0.02) as client:
        await client.servers[0].close()
        await until(lambda: client.rows()[0]["state"] == "ejected", "the ejection")
        assert client.rows()[0]["probe"]["ok"] is False
        assert ends(await client.calls(10)) == {""}
        assert client.runner.retries.made == 0


async def test_a_replica_with_a_different_tool_is_not_called_for_it() -> None:
    async with several([1, 1, 1]) as client:
        client.servers[2].tools = CHANGED
        client.changed.set()
        await until(client.settled, "the refreshed list")
        assert client.rows()[2]["differs"] == ["plain"]
        (plain,) = [each for each in client.listing.tools if each.name == "plain"]
        assert plain.definition == TOOLS[0], "the definition of the majority"
        before = client.calls_by_replica()[2]
        assert ends(await client.calls(9)) == {""}
        assert client.calls_by_replica()[2] == before
        await client.calls(9, "twice")
        assert client.calls_by_replica()[2] > before, "it is called for equal tools"


async def test_the_definition_of_the_majority_is_listed_and_other_replicas_wait() -> None:
    async with several([1, 1, 1]) as client:
        for server in client.servers[1:]:
            server.tools = CHANGED
        client.changed.set()
        await until(client.settled, "the refreshed list")
        assert client.rows()[0]["differs"] == ["plain"]
        (plain,) = [each for each in client.listing.tools if each.name == "plain"]
        assert plain.definition == CHANGED[0]
        assert ends(await client.calls(8)) == {""}
        assert client.calls_by_replica()[0] == 0


async def test_a_session_stays_with_its_replica() -> None:
    async with several([1, 1, 1], sessions=True) as client:
        for key in range(12):
            assert ends(await client.calls(3, key=f"key{key}")) == {""}
        for number, server in enumerate(client.servers):
            assert set(server.sessions) <= {f"s{number}"}
            assert server.call_count % 3 == 0, "each caller uses one replica only"
        assert sum(each.call_count > 0 for each in client.servers) > 1


async def test_a_hanging_session_call_counts_against_its_replica() -> None:
    async with several([1, 1], sessions=True, timeout=3) as client:
        for server in client.servers:
            server.trouble, server.only = "hung", 1
        result = await client.calls(1, capabilities=ELICITATION)
        assert isinstance(result[0].error, UpstreamTimeoutError)
        await until(lambda: any(each["failures"] for each in client.rows()), "the failure")


async def test_a_replica_of_another_protocol_family_is_left_out() -> None:
    async with AsyncExitStack() as stack:
        servers = [FaultyServer(), FaultyServer(session="old")]
        for server in servers:
            await server.start()
            stack.push_async_callback(server.close)
        client = Several(servers, [1, 1])
        await client.open(
            ReplicatedUpstream("s", client.server, client.news, client.events, DIALERS, {})
        )
        stack.push_async_callback(client.close)
        await until(
            lambda: any("family" in each["reason"] for each in client.rows()), "the rejection"
        )
        assert ends(await client.calls(4)) == {""}
        assert sorted(client.calls_by_replica()) == [0, 4]


async def test_an_executor_reports_replicas_and_probes_idle_servers(operator: Bus) -> None:

    async def row(name: str) -> Any:
        rows = await servers_of(operator)
        return next((each for each in rows if each["name"] == name), None)

    async def both() -> Any:
        result = await row("several") or {}
        states = [each["state"] for each in result.get("replicas", ())]
        return result if states == ["active", "active"] else None

    async def probed() -> Any:
        return (await row("single") or {}).get("probe")

    async with AsyncExitStack() as stack:
        servers = [FaultyServer() for _ in range(3)]
        for server in servers:
            await server.start()
            stack.push_async_callback(server.close)
        urls = [each.url for each in servers]
        declared = Configuration(
            servers={
                "several": Server(replicas=urls[:2]),
                "single": Server(url=urls[2], probe=0.05),
            }
        )
        config = await operator.bucket(CONFIG)
        await config.put("configuration", declared.model_dump_json().encode())
        await stack.enter_async_context(build(ProcessContext()).running())
        result = await until_async(both, "both replicas in place")
        assert (result["state"], result["tools"]) == ("ready", 2)
        assert (await until_async(probed, "a probe"))["ok"] is True


async def test_a_server_without_any_replica_reports_it() -> None:
    gone = FaultyServer()
    await gone.start()
    await gone.close()
    client = Several([gone], [1])
    upstream = ReplicatedUpstream("s", client.server, client.news, client.events, DIALERS, {})
    try:
        with pytest.raises(UpstreamDeadError, match="no replica that can be called"):
            await upstream.open()
    finally:
        await upstream.close()
