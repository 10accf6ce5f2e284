"""Limits: loops of a run, prices by result size, budgets for some tools."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from harness.clients.bus_operator import key
from harness.clients.mcp_client import Answer, Client
from harness.gateway.cluster import Cluster, Upstream
from harness.waits import PATIENCE, until_blocking
from toolbus_common.config import Budget, Configuration, Loop, Period, Price, Server
from toolbus_common.contracts import BudgetState, LedgerQuery, LedgerReply
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR

SECRET = "tbk_bot_a-secret-of-limit-tests"
TRACE = "00-{:032x}-00000000000000aa-01"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Run a gateway of these tests' own."""
    upstream = Upstream(tmp_path_factory.mktemp("upstream"))
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    limits = (
        Budget(usd=5, per=Period.DAY, timezone="Europe/Oslo"),
        Budget(calls=2, per=Period.WEEK, rolling=True, tools=("echo__count",)),
    )
    configuration = Configuration(
        servers={"echo": Server(url=upstream.url)},
        keys={"bot": key(SECRET, budgets=limits, loop=Loop(calls=2, seconds=600))},
        prices={"echo__say": Price(call=0.001, kilobyte=0.01, maximum=0.5)},
    )
    with upstream.running(), cluster.running(configuration, fused=True):
        cluster.until_listed(cluster.client(SECRET), "echo__say")
        yield cluster


def say(client: Client, text: str, run: int | None = None) -> Answer:
    meta = {} if run is None else {"_meta": {"traceparent": TRACE.format(run)}}
    return client.request(
        "tools/call", {"name": "echo__say", "arguments": {"text": text}, **meta}
    )  # fmt: skip


def test_a_loop_is_stopped_in_its_own_run_only(cluster: Cluster) -> None:
    client = cluster.client(SECRET)
    assert [say(client, "again", run=1).code for _ in range(3)] == ["", "", "loop_detected"]
    refused = say(client, "again", run=1)
    assert "change the arguments" in refused.error["message"]
    assert refused.error["data"]["retryable"] is False
    assert say(client, "something else", run=1).code == ""
    assert say(client, "again", run=2).code == ""


def test_without_a_trace_the_key_is_the_run(cluster: Cluster) -> None:
    client = cluster.client(SECRET)
    assert [say(client, "bare").code for _ in range(3)] == ["", "", "loop_detected"]


def test_a_call_is_charged_by_its_result_size_in_ledger_and_events(cluster: Cluster) -> None:
    client = cluster.client(SECRET)
    assert say(client, "the first", run=3).code == ""
    until_blocking(lambda: settled(cluster), "earlier calls are settled")
    before = budgets(cluster)[0].spent
    assert say(client, "x" * 5000, run=5).code == ""
    where = f"trace_id = '{5:032x}'"
    row = cluster.eventual_events(where, "call.completed")["call.completed"]
    size = json.loads(row["detail"])["result_bytes"]
    assert size > 5000
    assert row["charge"] == 1000 + size * 10
    until_blocking(lambda: budgets(cluster)[0].spent - before == row["charge"], "it is settled")


def test_a_call_budget_for_some_tools_does_not_limit_the_others(cluster: Cluster) -> None:
    client = cluster.client(SECRET)
    items = [client.call("echo__count", {"id": f"n{n}"}).code for n in range(3)]
    assert items == ["", "", "budget_exceeded"]
    assert say(client, "still", run=4).code == ""


def test_the_budgets_are_shown_with_spending_and_reset_time(cluster: Cluster) -> None:
    money, counted = json.loads(toolbus(cluster, "ledger", "show", "--json").stdout)["budgets"]
    assert (money["kind"], money["limit"], money["timezone"]) == ("usd", 5_000_000, "Europe/Oslo")
    assert (counted["kind"], counted["rolling"], counted["tools"]) == (
        "calls",
        True,
        ["echo__count"],
    )
    assert money["resets_at"] > 0
    table = toolbus(cluster, "ledger", "show").stdout
    assert "rolling week" in table
    assert "day (Europe/Oslo)" in table


def test_a_ledger_rebuilt_by_command_has_the_same_spending(cluster: Cluster) -> None:
    assert say(cluster.client(SECRET), "before", run=5).code == ""
    until_blocking(lambda: settled(cluster), "all is settled")
    before = [budget.spent for budget in budgets(cluster)]
    assert rebuilt(cluster)["calls"] == 0
    assert [budget.spent for budget in budgets(cluster)] == before
    assert say(cluster.client(SECRET), "after", run=5).code == ""


def test_rebuilding_an_unknown_customer_is_an_error(cluster: Cluster) -> None:
    done = toolbus(cluster, "ledger", "rebuild", "nobody")
    assert done.returncode == 1
    assert "Customer 'nobody' has no counters" in done.stderr


def budgets(cluster: Cluster) -> tuple[BudgetState, ...]:
    """Return the budgets; queried often, so without a command's process each time."""

    async def request(bus: Bus) -> LedgerReply:
        return await RequestReply(OPERATOR, bus).request(
            LedgerQuery(customer="default"), LedgerReply, PATIENCE
        )

    return tuple(cluster.on_the_bus(request).budgets)


def settled(cluster: Cluster) -> bool:
    """Return whether a budget exists, and no call is reserved."""
    found = budgets(cluster)
    return bool(found) and all(budget.reserved == 0 for budget in found)


def rebuilt(cluster: Cluster) -> dict[str, Any]:
    """Rebuild the ledger, and try again while audit is behind or another rebuild runs."""
    give_up = time.monotonic() + PATIENCE
    while True:
        done = toolbus(cluster, "ledger", "rebuild", "default", "--json")
        if done.returncode == 0:
            body: dict[str, Any] = json.loads(done.stdout)
            return body
        assert time.monotonic() < give_up, done.stderr


def toolbus(cluster: Cluster, *words: str) -> subprocess.CompletedProcess[str]:
    """Run one command at this gateway."""
    command = [sys.executable, "-m", "toolbus_cli.main", *words]
    command += ["--state-dir", str(cluster.state_dir)]
    environment = {**os.environ, "TOOLBUS_NATS_URL": cluster.nats.url}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
