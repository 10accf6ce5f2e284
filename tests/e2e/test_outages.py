"""Outages of parts of the gateway: reported at once and by name, and ended by recovery."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from secrets import token_hex

import pytest

from harness.clients.bus_operator import key
from harness.clients.mcp_client import Answer, Client
from harness.gateway.cluster import Cluster, Upstream
from harness.waits import PATIENCE, until_blocking
from toolbus_common.config import Budget, Configuration, Period, Server
from toolbus_common.contracts import BudgetState, LedgerQuery, LedgerReply
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR

SECRET = "tbk_bot_a-secret-of-outage-tests"


@pytest.fixture(scope="module", params=["separate", "fused"])
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, upstream: Upstream
) -> Iterator[Cluster]:
    """Run a gateway that every test but the last leaves intact."""
    fields = {"CALL_TIMEOUT": "5", "REDIS_TIMEOUT": "2", "LEDGER_QUIET": "3"}
    cluster = Cluster(
        tmp_path_factory.mktemp("cluster"),
        **{f"TOOLBUS_{name}": value for name, value in fields.items()},
    )
    configuration = Configuration(
        servers={"echo": Server(url=upstream.url)},
        keys={"bot": key(SECRET, budget=Budget(usd=5, per=Period.MONTH))},
        prices={"echo__count": 0.001},
    )
    with cluster.running(configuration, fused=request.param == "fused"):
        cluster.until_listed(cluster.client(SECRET), "echo__say")
        yield cluster


def dear(client: Client) -> Answer:
    """Make a call that costs money."""
    return client.call("echo__count", {"id": "x"})


def test_an_emptied_valkey_gives_no_fresh_budget_and_is_rebuilt_from_events(
    cluster: Cluster,
) -> None:
    client = cluster.client(SECRET)
    for _ in range(3):
        assert dear(client).status == HTTPStatus.OK
    until_blocking(lambda: budget(cluster).reserved == 0, "the calls are settled")
    before = budget(cluster).spent
    assert before >= 3000
    cluster.valkey.kill()
    for file in cluster.valkey.directory.glob("appendonlydir/*"):
        file.unlink()
    cluster.valkey.start()
    answer = until_blocking(
        lambda: (a := dear(client)).code == "ledger_rebuilding" and a, "the loss is noticed"
    )
    assert answer.status == HTTPStatus.SERVICE_UNAVAILABLE
    assert answer.error["data"]["retryable"] is True
    assert "lost its counters" in answer.error["message"]
    until_blocking(lambda: not dear(client).code, "the counters are rebuilt")
    until_blocking(lambda: budget(cluster).spent == before + 1000, "what was spent before counts")


def test_an_outage_of_nats_is_503_at_once_and_recovers(cluster: Cluster) -> None:
    client = cluster.client(SECRET)
    assert dear(client).status == HTTPStatus.OK
    cluster.nats.kill()
    until_blocking(lambda: dear(client).code == "bus_down", "the edge noticed")
    answer = dear(client)
    assert answer.status == HTTPStatus.SERVICE_UNAVAILABLE
    assert answer.headers["retry-after"] == "1"
    assert "The bus is down" in answer.error["message"]
    assert client.get(f"http://{cluster.ops['ingress']}/readyz").status == 503
    assert client.get(client.endpoint.replace("/mcp", "/healthz")).status == 200
    cluster.nats.start()
    until_blocking(lambda: not dear(client).code, "calls flow again")


def test_an_outage_of_valkey_rejects_paid_calls_and_allows_free_ones(
    cluster: Cluster,
) -> None:
    client = cluster.client(SECRET)
    assert dear(client).status == HTTPStatus.OK
    cluster.valkey.kill()
    answer = dear(client)
    assert (answer.status, answer.code) == (503, "ledger_down")
    assert "Redis" in answer.error["message"]
    assert client.call("echo__say", {"text": "free"}).text == "free"
    cluster.valkey.start()
    until_blocking(lambda: not dear(client).code, "spending is possible again")


def test_a_hanging_valkey_is_reported_too(cluster: Cluster) -> None:
    client = cluster.client(SECRET)
    assert dear(client).status == HTTPStatus.OK
    cluster.valkey.freeze()
    answer = dear(client)
    cluster.valkey.thaw()
    assert (answer.status, answer.code) == (503, "ledger_down")
    until_blocking(lambda: not dear(client).code, "spending is possible again")


def budget(cluster: Cluster) -> BudgetState:
    """Return the state of the key's budget."""

    async def request(bus: Bus) -> LedgerReply:
        return await RequestReply(OPERATOR, bus).request(
            LedgerQuery(customer="default"), LedgerReply, PATIENCE
        )

    result = cluster.on_the_bus(request)
    return result.budgets[0]


def test_a_dead_server_is_named_and_then_its_breaker_opens(
    cluster: Cluster, upstream: Upstream
) -> None:
    client = cluster.client(SECRET)
    upstream.kill()
    first = client.call("echo__say", {"text": "x"})
    assert first.status == HTTPStatus.OK
    assert first.code == "upstream_dead"
    assert "echo" in first.error["message"]
    opened = until_blocking(
        lambda: (a := client.call("echo__say")).code == "breaker_open" and a, "the breaker opened"
    )
    assert "echo" in opened.error["message"]
    assert client.tools(), "its last known tools stay listed"
    upstream.start()
    until_blocking(lambda: not client.call("echo__say", {"text": "x"}).code, "a probe closed it")
    cluster.eventual_events(
        "server = 'echo'", "server.connected", "breaker.opened", "breaker.closed"
    )


def test_a_server_that_dies_during_a_call_ends_the_call(
    cluster: Cluster, upstream: Upstream
) -> None:
    client = cluster.client(SECRET)
    answer = client.call("echo__die")
    assert answer.code in ("upstream_dead", "outcome_unknown", "upstream_failed")
    upstream.kill()
    upstream.start()
    until_blocking(lambda: not client.call("echo__say", {"text": "x"}).code, "it is called again")


def test_a_draining_gateway_finishes_its_running_call(cluster: Cluster, upstream: Upstream) -> None:
    client = cluster.client(SECRET)
    name = token_hex(8)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.call, "echo__wait", {"id": name, "seconds": 1.0})
        until_blocking(lambda: name in {seen.get("id") for seen in upstream.arrived()}, "under way")
        for process in cluster.every():
            process.signal(signal.SIGTERM)
        assert call.result().text == name
    assert {process.ended() for process in cluster.every()} == {0}
