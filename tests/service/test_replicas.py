"""A server of several replicas: who takes calls, who is left out, and who comes back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest

from harness.services.call_runner import AT_LOOPBACK, CallRunner
from harness.upstreams.faulty_server import TOOLS, FaultyServer
from harness.waits import until, until_async
from toolbus_common.concurrency import end
from toolbus_common.config import Configuration, Server
from toolbus_common.contracts import BreakerClosed, BreakerOpened, ServersQuery, ServersReply
from toolbus_common.errors import (
    BreakerOpenError,
    UnavailableError,
    UpstreamDeadError,
    UpstreamTimeoutError,
)
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.nats.topology import CONFIG
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.settings import Settings
from toolbus_executor.main import build
from toolbus_executor.resilience.circuit_breaker import Breaker
from toolbus_executor.transport.dialer_factory import DialerFactory
from toolbus_executor.upstreams.replicas import outlier_ejection as ejecting
from toolbus_executor.upstreams.replicas.outlier_ejection import FAILURES
from toolbus_executor.upstreams.replicas.upstream import ReplicatedUpstream

WAYS = DialerFactory(AT_LOOPBACK.egress)

TWICE = {"twice": {"idempotent": True}}
CHANGED = [TOOLS[0] | {"description": "now other"}, TOOLS[1]]
ASKED = '{"elicitation": {}}'  # the capabilities of a caller that can be asked


class Several(CallRunner):
    """A runner over replicas, whose lists are taken anew as a keeper does."""

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
        """Connect to all of them."""
        await self.open(ReplicatedUpstream("s", self.server, self.news, self.events, WAYS, {}))
        self._keeping = asyncio.create_task(self._keep())
        await until(self.settled, "all of them in place")

    async def stop(self) -> None:
        """Leave."""
        await end(self._keeping)
        await self.close()

    def rows(self) -> list[dict[str, Any]]:
        """What is told of each replica."""
        found: list[dict[str, Any]] = self.runner.status()["replicas"]
        return found

    async def calls(self, count: int, tool: str = "plain", **more: Any) -> list[Any]:
        """So many calls, one after the other; what each ended with."""
        items = [await self.call(tool, call_id=f"{tool}{n}", **more) for n in range(count)]
        return [each.frames[-1] for each in items]

    def asked(self) -> list[int]:
        """How many calls reached each."""
        return [each.call_count for each in self.servers]

    def settled(self) -> bool:
        """Whether all are in place, and nobody is about to look again at what they offer."""
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
        made = Several(servers, weights, **declared)
        await made.start()
        stack.push_async_callback(made.stop)
        yield made


def ends(told: list[Any]) -> set[str]:
    """What calls ended with: the names of errors, empty for answers."""
    return {getattr(getattr(each, "error", None), "code", "") for each in told}


async def test_calls_go_to_replicas_by_weight() -> None:
    async with several([1, 3]) as bench:
        assert ends(await bench.calls(40)) == {""}
        assert bench.asked() == [10, 30]


async def test_a_replica_that_fails_is_ejected_and_the_server_goes_on() -> None:
    async with several([1, 1, 1]) as bench:
        bench.servers[0].trouble = "reset"
        assert ends(await bench.calls(3 * FAILURES)) == {"", "upstream_dead"}
        before = bench.asked()
        assert before[0] == FAILURES
        assert ends(await bench.calls(20)) == {""}, "calls that fail after the ejection"
        assert bench.asked()[0] == before[0]
        row = bench.rows()[0]
        assert (row["state"], row["ejections"], len(row["failures"])) == ("ejected", 1, FAILURES)
        assert bench.runner.status()["breaker"] == "closed"
        (event,) = [each for each in bench.events.published if isinstance(each, BreakerOpened)]
        assert event.replica == row["replica"] == f"127.0.0.1:{bench.servers[0].port}/mcp"


async def test_many_calls_that_fail_at_one_replica_at_once_open_no_breaker_of_the_server() -> None:
    async with several([1, 1, 1], timeout=5) as bench:
        bench.servers[0].trouble = "hung"
        result = await asyncio.gather(*(bench.call("plain", call_id=f"c{n}") for n in range(30)))
        codes = [getattr(getattr(each.frames[-1], "error", None), "code", "") for each in result]
        assert codes.count("upstream_timeout") == 10
        assert bench.runner.status()["breaker"] == "closed"
        assert ends(await bench.calls(10)) == {""}


async def test_a_replica_that_hangs_does_not_take_every_place_of_the_server() -> None:
    async with several([1, 1, 1], timeout=120) as bench:
        hung = bench.servers[0]
        hung.trouble = "hung"
        calls = [asyncio.create_task(bench.call("plain", call_id=f"c{n}")) for n in range(90)]
        await until(
            lambda: sum(each.done() for each in calls) + hung.call_count == 90, "the others"
        )
        assert 0 < hung.call_count < bench.runner.bulkhead.slots
        hung.released.set()
        result = await asyncio.gather(*calls)
        assert ends([each.frames[-1] for each in result]) == {""}


async def test_a_call_that_may_be_made_again_is_made_at_another_replica() -> None:
    async with several([1, 1]) as bench:
        bench.servers[0].trouble = "reset"
        assert ends(await bench.calls(2, "twice")) == {""}
        assert bench.runner.retries.made == 1
        assert bench.asked() == [1, 2]


async def test_what_was_not_sent_to_a_replica_that_is_gone_goes_to_another() -> None:
    async with several([1, 1]) as bench:
        await bench.servers[0].close()
        assert ends(await bench.calls(2)) == {""}
        assert bench.asked() == [0, 2]


async def test_when_all_fail_half_of_them_stay_and_the_breaker_of_the_server_opens() -> None:
    async with several([1, 1, 1, 1]) as bench:
        for server in bench.servers:
            server.trouble = "failing"
        result = await bench.calls(30)
        assert isinstance(result[-1].error, BreakerOpenError)
        bench.runner.breaker.circuit = Breaker(threshold=10_000)
        assert ends(await bench.calls(30)) == {"upstream_dead"}
        states = [each["state"] for each in bench.rows()]
        assert sorted(states) == ["ejected", "ejected", "active", "active"]


async def test_who_was_ejected_is_probed_compared_and_tried_before_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ejecting, "BASE", 0.05)
    async with several([1, 1], probe=0.02) as bench:
        bad = bench.servers[0]
        bad.trouble, bad.wholly = "reset", True
        await bench.calls(2 * FAILURES)
        await until(lambda: bench.rows()[0]["ejections"], "the ejection")
        request, listed = bad.call_count, bad.methods["tools/list"]
        met = bad.met
        await until(lambda: bad.met >= met + 3, "probes that fail")
        assert ends(await bench.calls(10)) == {""}
        assert bad.call_count == request, "no call tried it before a probe was answered"
        bad.trouble = ""
        await until(lambda: bench.rows()[0]["state"] == "on trial", "its trial")
        await until(lambda: bad.methods["tools/list"] > listed, "another look at what it offers")
        await until(lambda: bench.upstream._replicas[0].compared, "the comparison")  # type: ignore[attr-defined]
        assert ends(await bench.calls(10)) == {""}
        assert bench.rows()[0]["state"] == "active"
        assert bad.call_count > request
        (event,) = [each for each in bench.events.published if isinstance(each, BreakerClosed)]
        assert event.replica == bench.rows()[0]["replica"]


async def test_an_idle_replica_that_dies_is_ejected_before_a_call_meets_it() -> None:
    async with several([1, 1], probe=0.02) as bench:
        await bench.servers[0].close()
        await until(lambda: bench.rows()[0]["state"] == "ejected", "the ejection")
        assert bench.rows()[0]["probe"]["ok"] is False
        assert ends(await bench.calls(10)) == {""}
        assert bench.runner.retries.made == 0


async def test_a_replica_that_offers_a_tool_otherwise_is_not_called_for_it() -> None:
    async with several([1, 1, 1]) as bench:
        bench.servers[2].tools = CHANGED
        bench.changed.set()
        await until(bench.settled, "the list taken anew")
        assert bench.rows()[2]["differs"] == ["plain"]
        (plain,) = [each for each in bench.listing.tools if each.name == "plain"]
        assert plain.definition == TOOLS[0], "as most of them have it"
        before = bench.asked()[2]
        assert ends(await bench.calls(9)) == {""}
        assert bench.asked()[2] == before
        await bench.calls(9, "twice")
        assert bench.asked()[2] > before, "it does what it offers like the others"


async def test_what_most_replicas_offer_now_is_listed_and_the_last_old_one_waits() -> None:
    async with several([1, 1, 1]) as bench:
        for server in bench.servers[1:]:
            server.tools = CHANGED
        bench.changed.set()
        await until(bench.settled, "the list taken anew")
        assert bench.rows()[0]["differs"] == ["plain"]
        (plain,) = [each for each in bench.listing.tools if each.name == "plain"]
        assert plain.definition == CHANGED[0]
        assert ends(await bench.calls(8)) == {""}
        assert bench.asked()[0] == 0


async def test_a_session_stays_with_the_replica_that_gave_it() -> None:
    async with several([1, 1, 1], sessions=True) as bench:
        for key in range(12):
            assert ends(await bench.calls(3, key=f"key{key}")) == {""}
        for number, server in enumerate(bench.servers):
            assert set(server.sessions) <= {f"s{number}"}
            assert server.call_count % 3 == 0, "a caller is at one replica and no other"
        assert sum(each.call_count > 0 for each in bench.servers) > 1


async def test_a_session_whose_replica_hangs_in_a_call_that_could_ask_counts_against_it() -> None:
    async with several([1, 1], sessions=True, timeout=3) as bench:
        for server in bench.servers:
            server.trouble, server.only = "hung", 1
        result = await bench.calls(1, capabilities=ASKED)
        assert isinstance(result[0].error, UpstreamTimeoutError)
        await until(lambda: any(each["failures"] for each in bench.rows()), "the failure")


async def test_a_replica_of_another_era_is_left_out() -> None:
    async with AsyncExitStack() as stack:
        servers = [FaultyServer(), FaultyServer(session="old")]
        for server in servers:
            await server.start()
            stack.push_async_callback(server.close)
        bench = Several(servers, [1, 1])
        await bench.open(ReplicatedUpstream("s", bench.server, bench.news, bench.events, WAYS, {}))
        stack.push_async_callback(bench.close)
        await until(lambda: any("family" in each["reason"] for each in bench.rows()), "the refusal")
        assert ends(await bench.calls(4)) == {""}
        assert sorted(bench.asked()) == [0, 4]


async def test_an_executor_tells_of_its_servers_replicas_and_probes_who_is_idle(
    settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLBUS_STATE_DIR", str(settings.state_dir))
    monkeypatch.setenv("TOOLBUS_NATS_URL", settings.nats_url)

    async def row(name: str) -> Any:
        with suppress(UnavailableError):
            result = await RequestReply(OPERATOR, operator).request(ServersQuery(), ServersReply)
            return next((each for each in result.servers if each["name"] == name), None)

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


async def test_a_server_none_of_whose_replicas_is_there_says_so() -> None:
    gone = FaultyServer()
    await gone.start()
    await gone.close()
    bench = Several([gone], [1])
    upstream = ReplicatedUpstream("s", bench.server, bench.news, bench.events, WAYS, {})
    try:
        with pytest.raises(UpstreamDeadError, match="no replica that can be called"):
            await upstream.open()
    finally:
        await upstream.close()
