"""Delay of a key's revocation, and the cost of ten thousand keys (`make bench-governance`).

All services are real processes: three replicas of each call-path service for the revocations, one
of each for the keys. Every answer is checked. The machine's load is stored with the figures,
because figures of a busy machine are unreliable.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any
from urllib.parse import urlsplit

from rich.progress import track

from figures import keep, load, met, row, show
from harness.clients.bus_operator import key
from harness.engines.engine import Engine
from harness.gateway.cluster import Cluster
from harness.waits import until_blocking
from processes import resident_mb
from toolbus_common.config import Configuration, Key, Server
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.nats.topology import CONFIG, KEY_PREFIX

HERE = Path(__file__).parent
ROOT = "tbk_root_a-secret-of-the-bench"
VERSION = "2025-11-25"
REPLICAS = 3
# figure -> its maximum
DEMANDS = {
    "revocation_p99_ms": 100.0,
    "list_p50_ms": 5.0,
    "policy_rss_mb": 300.0,
    "policy_start_seconds": 3.0,
}


class Echo(Engine):
    """The benchmark's upstream with a number of tools."""

    def command(self) -> list[str]:
        """Return the command line."""
        program = str(HERE / "echo_upstream.py")
        return [sys.executable, program, "--port", str(self.port), "--tools", "500"]


class Operator:
    """One open connection that writes keys."""

    def __init__(self, cluster: Cluster) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        seed = (cluster.state_dir / "nats" / "nkeys" / f"{OPERATOR}.seed").read_text()
        self._bus = Bus(OPERATOR, cluster.nats.url, seed)
        self._run(self._bus.open())

    def put(self, keys: dict[str, Key]) -> None:
        """Write keys concurrently and return when all are acknowledged."""
        self._run(self._put(keys))

    def close(self) -> None:
        """Close the connection."""
        self._run(self._bus.close())
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _put(self, keys: dict[str, Key]) -> None:
        bucket = await self._bus.bucket(CONFIG)
        entries = [(f"{KEY_PREFIX}{name}", made.model_dump_json()) for name, made in keys.items()]
        await asyncio.gather(*(bucket.put(name, value.encode()) for name, value in entries))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(60)


class Caller:
    """One agent on one connection; `code` is the expected error code of a denial."""

    def __init__(self, endpoint: str, secret: str) -> None:
        parts = urlsplit(endpoint)
        self._path = parts.path
        self._connection = HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        self._headers = {
            "Authorization": f"Bearer {secret}", "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream", "MCP-Protocol-Version": VERSION,
        }  # fmt: skip

    def request(self, method: str, params: dict[str, Any] | None = None) -> bytes:
        """Send one request and return the whole answer."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
        self._connection.request("POST", self._path, json.dumps(body), self._headers)
        return self._connection.getresponse().read()

    def call(self) -> str:
        """Make one checked call; return the error code of its denial, or an empty string."""
        params = {"name": "echo__echo", "arguments": {"text": "hi"}}
        answer = json.loads(self.request("tools/call", params))
        if "error" in answer:
            return str(answer["error"]["data"]["code"])
        assert answer["result"]["content"][0]["text"] == "hi", answer
        return ""

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def main() -> int:
    """Run the benchmark; return 0 if every demand holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--revocations", type=int, default=100)
    parser.add_argument("--keys", type=int, default=10_000)
    options = parser.parse_args()
    before = load()
    figures = revocations(options.revocations) | many_keys(options.keys)
    rows = [row(name, figures[name], "<=", most) for name, most in DEMANDS.items()]
    show(rows)
    header = {"asked": vars(options), "before": before, "after": load()}
    keep("governance", {**header, "figures": figures})
    return 0 if met(rows) else 1


# -- revocation ------------------------------------------------------------------------------


def revocations(trials: int) -> dict[str, float]:
    """Return seconds from before the write to the first denial, at the slowest replica."""
    with _cluster(REPLICAS) as cluster:
        operator = Operator(cluster)
        numbers = track(range(trials), "revoking keys")
        seen = [_revoked(cluster, operator, number) for number in numbers]
        operator.close()
    ordered = sorted(each * 1000 for each in seen)
    return {
        "revocation_p50_ms": statistics.median(ordered),
        "revocation_p99_ms": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))],
    }


def _revoked(cluster: Cluster, operator: Operator, trial: int) -> float:
    name, secret = f"victim{trial}", f"tbk_victim{trial}_a-secret-of-the-bench"
    live = key(secret)
    operator.put({name: live})
    endpoints = [cluster.client(ROOT, replica).endpoint for replica in range(REPLICAS)]
    for endpoint in endpoints:
        until_blocking(partial(_opens, endpoint, secret), "every replica accepts the key")
    refused: list[float] = []
    watching = [
        threading.Thread(target=_watch, args=(endpoint, secret, refused)) for endpoint in endpoints
    ]
    for thread in watching:
        thread.start()
    began = perf_counter()
    operator.put({name: live.model_copy(update={"revoked": True})})
    for thread in watching:
        thread.join()
    assert len(refused) == len(endpoints), "every replica denies"
    return max(refused) - began


def _opens(endpoint: str, secret: str) -> bool:
    return _ask_once(endpoint, secret) in ("", "unknown_tool")


def _ask_once(endpoint: str, secret: str) -> str:
    caller = Caller(endpoint, secret)
    try:
        return caller.call()
    finally:
        caller.close()


def _watch(endpoint: str, secret: str, refused: list[float]) -> None:
    caller, give_up = Caller(endpoint, secret), monotonic() + 30
    while monotonic() < give_up:
        if caller.call() == "unauthorized":
            refused.append(perf_counter())
            break
    caller.close()


# -- ten thousand keys -----------------------------------------------------------------------


def many_keys(count: int) -> dict[str, float]:
    """Return the cost of lists, policy's memory and its start with many keys over 500 tools."""
    with _cluster(1) as cluster:
        secrets = _make_keys(cluster, count)
        endpoint = cluster.client(ROOT).endpoint
        until_blocking(partial(_opens, endpoint, secrets[-1]), "the last key is accepted")
        lists = [_listed(endpoint, secret) for secret in track(secrets, "lists of every key")]
        for secret in track(secrets[:: max(1, count // 2000)], "calls of some keys"):
            assert _opens(endpoint, secret)
        policy = cluster.processes["policy"][0]
        memory = resident_mb([policy.pid])
        began = perf_counter()
        cluster.run("policy").wait_ready()
        started = perf_counter() - began
    lists.sort()
    return {
        "keys": float(count),
        "list_p50_ms": statistics.median(lists) * 1000,
        "list_p99_ms": lists[int(len(lists) * 0.99)] * 1000,
        "policy_rss_mb": memory,
        "policy_start_seconds": started,
    }


def _make_keys(cluster: Cluster, count: int) -> list[str]:
    """Return keys with different views: each may use all tools except a few."""
    operator = Operator(cluster)
    secrets = [f"tbk_k{number}_a-secret-of-the-bench" for number in range(count)]
    for start in track(range(0, count, 250), "creating keys"):
        batch = range(start, min(count, start + 250))
        operator.put({f"k{number}": _made(number, secrets[number]) for number in batch})
    operator.close()
    return secrets


def _made(number: int, secret: str) -> Key:
    return key(secret, deny=[f"echo__tool_{number % 500}", f"echo__tool_{number // 500 + 100}"])


def _listed(endpoint: str, secret: str) -> float:
    caller = Caller(endpoint, secret)
    began = perf_counter()
    answer = caller.request("tools/list")
    took = perf_counter() - began
    caller.close()
    tools = json.loads(answer)["result"]["tools"]
    assert 490 < len(tools) <= 501, len(tools)
    return took


@contextmanager
def _cluster(replicas: int) -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="toolbus-bench-") as directory:
        echo, cluster = Echo(Path(directory) / "echo"), Cluster(Path(directory) / "cluster")
        try:
            echo.start()
            server = Server(url=f"http://127.0.0.1:{echo.port}/mcp")
            cluster.start(
                Configuration(servers={"echo": server}, keys={"root": key(ROOT)}), replicas=replicas
            )
            until_blocking(
                lambda: "echo__echo" in cluster.client(ROOT).tools(), "the tools are listed"
            )
            yield cluster
        finally:
            cluster.stop()
            echo.kill()


if __name__ == "__main__":
    raise SystemExit(main())
