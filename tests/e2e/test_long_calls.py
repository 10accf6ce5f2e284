"""Calls that outlive their first deadline: SDK clients, SDK servers, the real chain.

A call here has `FIRST` seconds at first, and `IDLE` seconds after its last progress.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
import redis
from mcp.client.client import Client as SdkClient
from mcp.client.streamable_http import streamable_http_client

from harness.clients.bus_operator import Row, key
from harness.gateway.cluster import Cluster
from harness.services.executor_pair import SDK_COMMAND, Stateful
from harness.waits import until_blocking
from toolbus_common.config import Configuration
from toolbus_common.contracts import IDEMPOTENCY, REPLAYED
from toolbus_common.mcp.builtin_server import EXECUTE
from toolbus_policy.ledger.valkey_store import BOOK, customer_key

BOT, POOR, CODER = (f"tbk_{name}_a-secret-of-long-calls" for name in ("bot", "poor", "coder"))
FIRST, IDLE, TOTAL = 6.0, 7.0, 120.0
PAUSE, STEPS = 0.5, 28  # 14 seconds: more than the first deadline, its grace and an idle time
PRICE = 10_000  # micro-dollars
LEVEL = "{{default}}:{epoch}:budget:key:{key}:usd:month:UTC"
OVER_HTTP = ("http", "sse", "dual")
SERVERS = ("stdio", *OVER_HTTP)


@pytest.fixture(scope="module", params=["separate", "fused"])
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """Run a gateway with an SDK server of each transport."""
    over = {kind: Stateful(tmp_path_factory.mktemp(kind), kind) for kind in OVER_HTTP}
    directory = tmp_path_factory.mktemp("cluster")
    cluster = Cluster(directory, TOOLBUS_CALL_TIMEOUT=f"{FIRST:g}", TOOLBUS_OUTCOME_GRACE="0.5")
    times = {"timeout": IDLE, "max_total_timeout": TOTAL}
    try:
        for each in over.values():
            each.start()
        where = {kind: "sse" if kind == "sse" else "url" for kind in OVER_HTTP}
        servers = {kind: {where[kind]: over[kind].url, **times} for kind in OVER_HTTP}
        short = {"url": over["dual"].url, **times, "tools": {"work": {"max_total_timeout": 8}}}
        budget = {"usd": 100, "per": "month"}
        declared = Configuration.model_validate(
            {
                "servers": {"stdio": {"command": SDK_COMMAND, **times}, **servers, "short": short},
                "keys": {
                    "bot": key(BOT, budget=budget),
                    "poor": key(POOR, budget=budget),
                    "coder": key(CODER, budget=budget, code_mode=True),
                },
                "prices": {"*": PRICE / 1_000_000},
            }
        )
        cluster.start(declared, fused=request.param == "fused", additional=("codemode",))
        cluster.until_listed(
            cluster.client(BOT), *(f"{server}__work" for server in (*SERVERS, "short"))
        )
        yield cluster
    finally:
        cluster.stop()
        for each in over.values():
            each.kill()


@asynccontextmanager
async def sdk(cluster: Cluster, mode: str, **options: Any) -> AsyncIterator[SdkClient]:
    headers = {"Authorization": f"Bearer {BOT}"}
    async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
        transport = streamable_http_client(cluster.client(BOT).endpoint, http_client=http)
        async with SdkClient(transport, mode=mode, **options) as client:
            yield client


def long_call(trace: str, **more: Any) -> dict[str, Any]:
    meta = {"traceparent": f"00-{trace}-00000000000000aa-01", **more}
    return {"arguments": {"steps": STEPS, "pause": PAUSE}, "meta": meta}


def events_of(cluster: Cluster, trace: str, *awaited: str) -> list[Row]:
    """Return the events of one trace in order, once the awaited ones are among them."""
    return cluster.eventual_rows(
        "SELECT event, id, call_id, toFloat64(at) AS at_, charge, code, reason,"
        f" JSONExtractFloat(detail, 'deadline') AS deadline FROM events WHERE trace_id = '{trace}'"
        " ORDER BY stream_seq, line",
        lambda rows: {*awaited} <= {row["event"] for row in rows},
    )


def ledger(cluster: Cluster, name: str) -> tuple[int, int]:
    """Return the spent and reserved amounts of a key, in micro-dollars."""
    with redis.Redis.from_url(cluster.valkey.url, decode_responses=True) as client:
        epoch = client.hget(customer_key("default", BOOK), "epoch")
        level: Any = client.hgetall(LEVEL.format(epoch=epoch, key=name))
    return int(level.get("spent", 0)), int(level.get("reserved", 0))


async def refused(*_: Any) -> Any:
    raise AssertionError("the server sends no request")


async def test_progress_extends_calls_of_every_transport_and_client(cluster: Cluster) -> None:
    received: dict[str, list[float]] = {}

    async def work(client: SdkClient, server: str, trace: str, *, listens: bool) -> str:
        outcome = received.setdefault(trace, [])

        async def on_progress(step: float, _total: float | None, _message: str | None) -> None:
            outcome.append(step)

        more: Any = {"progress_callback": on_progress} if listens else {}
        result: Any = await client.call_tool(f"{server}__work", **long_call(trace), **more)
        return str(result.content[0].text)

    async with (
        sdk(cluster, "auto") as stateless,
        sdk(cluster, "legacy") as legacy,
        sdk(cluster, "legacy", elicitation_callback=refused) as request,
    ):
        clients = (stateless, legacy, request)
        jobs = {
            f"{10 * number + index:032x}": (client, server, number == 1 or server == "http")
            for number, client in enumerate(clients, 1)
            for index, server in enumerate(SERVERS)
        }
        found = await asyncio.gather(
            *(work(c, s, trace, listens=listens) for trace, (c, s, listens) in jobs.items())
        )
    assert found == [f"{STEPS} steps"] * len(jobs)
    for trace, (_, _, listens) in jobs.items():
        assert received[trace] == (list(range(1, STEPS + 1)) if listens else []), trace
        await asyncio.to_thread(_was_extended_and_charged_once, cluster, trace)


def _was_extended_and_charged_once(cluster: Cluster, trace: str) -> None:
    rows = events_of(cluster, trace, "call.completed")
    names = [row["event"] for row in rows]
    assert names[0] == "call.allowed"
    assert names.count("call.completed") == 1
    assert "call.failed" not in names, rows
    (completed,) = (row for row in rows if row["event"] == "call.completed")
    later = [row["deadline"] for row in rows if row["event"] == "call.extended"]
    assert later == sorted(later)
    assert later[-1] > completed["at_"] > rows[0]["deadline"]
    seconds = completed["at_"] - rows[0]["at_"]
    assert 1 <= len(later) <= seconds / (IDLE / 2) + 1, (
        "published at most once in half an idle time"
    )
    assert completed["charge"] == PRICE


def test_a_call_ends_when_progress_stops_and_at_its_total_timeout(cluster: Cluster) -> None:
    def call(server: str, **arguments: float) -> Any:
        return cluster.client(BOT).call(f"{server}__work", arguments)

    with ThreadPoolExecutor(2) as pool:
        silent = pool.submit(call, "stdio", steps=2, pause=0.5, then=3600)
        endless = pool.submit(call, "short", steps=7200, pause=0.5)
        assert silent.result().code == "upstream_timeout"
        assert f"no more progress for {IDLE:g} s" in silent.result().error["message"]
        assert endless.result().code == "upstream_timeout"
        assert "within 8 s in total (max_total_timeout)" in endless.result().error["message"]


def test_an_idempotency_lock_lasts_as_long_as_its_extended_call(cluster: Cluster) -> None:
    client = cluster.client(BOT)
    meta = {"_meta": {IDEMPOTENCY: "long-one"}}
    arguments = {"steps": STEPS, "pause": PAUSE}
    params = {"name": "dual__work", "arguments": arguments, **meta}
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.request, "tools/call", params)
        codes = {""}
        while not first.done():
            codes.add(
                client.request("tools/call", params).code if time.monotonic() > began + 1 else ""
            )
            time.sleep(0.2)
        assert codes <= {"", "call_in_progress"}
        assert "call_in_progress" in codes
        assert first.result().text == f"{STEPS} steps"
    again = client.request("tools/call", params)
    assert again.json["result"]["_meta"][REPLAYED] is True


def test_a_program_outlives_the_first_deadline_of_its_request(cluster: Cluster) -> None:
    source = f"stdio.work(steps={STEPS}, pause={PAUSE})"
    answer = cluster.client(CODER).call(EXECUTE, {"code": source})
    assert f"{STEPS} steps" in answer.text, answer.body


def test_an_extended_call_of_a_killed_executor_is_charged_once_after_its_deadline(
    cluster: Cluster,
) -> None:
    trace = f"{99:032x}"
    service = next(name for name in cluster.processes if "executor" in name)
    deadline = 0.0
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(
            cluster.client(POOR).call, "dual__work", {"steps": 7200, "pause": 0.25}, trace
        )
        rows = events_of(cluster, trace, "call.allowed", "call.extended")
        until_blocking(lambda: time.time() > rows[0]["deadline"] + 2, "the first deadline is over")
        assert ledger(cluster, "poor") == (0, PRICE)
        cluster.processes[service].pop().kill()
        if not cluster.fused:
            assert running.result().code == "outcome_unknown"
        else:
            assert running.exception() is not None
            cluster.forget_port(0)
        ended = time.time()
    deadline = max(row["deadline"] for row in events_of(cluster, trace) if row["deadline"])
    if not cluster.fused:
        assert ended >= deadline
        assert ledger(cluster, "poor")[0] in (0, PRICE)
    cluster.run(service).wait_ready()
    rows = events_of(cluster, trace, "call.failed")
    (failed,) = (row for row in rows if row["event"] == "call.failed")
    assert (failed["code"], failed["charge"]) == ("outcome_unknown", PRICE)
    assert failed["at_"] >= deadline
    until_blocking(lambda: ledger(cluster, "poor") == (PRICE, 0), "charged once")
