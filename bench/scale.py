"""Throughput with more replicas of a service, and what a call takes (`make bench-scale`).

Every service is its own process. The replicas of one service at a time get a small share of a core
each, by a CPU quota, so that this service limits the whole: with two cores, only quotas show
whether replicas share the work. Then, without quotas, a load gives processor time, bytes and memory
of a call, from which docs/how-to/sizing.md is computed. Needs root, for the quotas.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis

from cpu_quota import CpuQuota
from figures import Row, console, keep, load, met, row, show
from harness.clients.bus_operator import key
from harness.gateway.cluster import Cluster, Upstream
from processes import cpu_seconds, family, resident_mb
from run import call_load, machine, quiet
from toolbus_common.config import Budget, Configuration, Period, Server
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import EVENTS

SECRET = "tbk_bot_a-secret-of-the-scale-bench"
SCALED = ("ingress", "policy", "executor")
REPLICAS = (1, 2, 3)
CONNECTIONS = 48
LIMITED_CONNECTIONS = 60  # more would be refused by the limits of the server
WARM_SECONDS = 2.0
MIN_GAIN = 0.7  # of a replica's share that two replicas must add


def main() -> int:
    """Run the benchmark; return 0 if the throughput grows with replicas."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load")
    parser.add_argument("--share", type=float, default=0.02, help="of a core, for each replica")
    parser.add_argument("--only", nargs="*", choices=SCALED, default=SCALED)
    options = parser.parse_args()
    if os.geteuid():
        raise SystemExit("CPU quotas are set: run this command as root.")
    before, rows, found = load(), [], {}
    for service in options.only:
        found[service] = _scaled(service, options)
        rows += list(_rows(service, found[service]))
    taken = _taken(options.seconds * 2)
    show(rows)
    for name, value in taken.items():
        console.print(f"{name}: {value}")
    header = {"machine": machine(), "asked": vars(options), "before": before, "after": load()}
    keep("scale", {**header, "calls_per_second": found, "call": taken, "rows": rows})
    return 0 if met(rows) else 1


def _scaled(service: str, options: argparse.Namespace) -> dict[int, float]:
    """Return calls per second by the number of replicas of a service."""
    found: dict[int, float] = {}
    with ExitStack() as stack:
        cluster = stack.enter_context(_cluster())
        endpoints = [cluster.client(SECRET).endpoint]
        for count in REPLICAS:
            if count > 1:
                cluster.run(service).wait_ready()
            if service == "ingress" and count > 1:
                endpoints.append(cluster.client(SECRET, count - 1).endpoint)
            _throughput(endpoints, WARM_SECONDS)  # a new process first loads and connects
            quota = stack.enter_context(CpuQuota(f"{service}-{count}", options.share).created())
            quota.add(cluster.processes[service][-1].pid)
            found[count] = _throughput(endpoints, options.seconds)
            console.print(
                f"{service}: {count} x {options.share:g} core: {found[count]:,.0f} calls/s"
            )
    return found


def _throughput(endpoints: list[str], seconds: float) -> float:
    """Return the calls per second at all endpoints together."""
    share = LIMITED_CONNECTIONS // len(endpoints)

    def measured(endpoint: str) -> float:
        seen = call_load(endpoint, "echo__count", SECRET, share, seconds, {"id": "@@@@@@@@ bench"})
        return float(seen["per_second"])

    with ThreadPoolExecutor() as threads:
        return sum(threads.map(measured, endpoints))


def _rows(service: str, found: dict[int, float]) -> Iterator[Row]:
    """Return the growth by each replica, in shares of what one replica does."""
    for count in REPLICAS[1:]:
        what = f"{service}: calls/s with {count} replicas ÷ with one"
        yield row(what, found[count] / found[1], ">=", 1 + (count - 1) * MIN_GAIN)


def _taken(seconds: float) -> dict[str, Any]:
    """Return what a call takes when nothing is limited."""
    with _cluster() as cluster:
        engines = {"nats": cluster.nats.pid, "valkey": cluster.valkey.pid}
        pids = engines | {name: each[0].pid for name, each in cluster.processes.items()}
        cpu = {name: cpu_seconds(pid) for name, pid in pids.items()}
        stored, rows = _stream_bytes(cluster), _disk_bytes(cluster)
        seen = call_load(
            cluster.client(SECRET).endpoint, "echo__count", SECRET, CONNECTIONS, seconds,
            {"id": "@@@@@@@@ bench"},
        )  # fmt: skip
        quiet([each for pid in pids.values() for each in family(pid)])
        calls = seen["all_requests"]
        used = {name: (cpu_seconds(pid) - cpu[name]) / calls * 1e6 for name, pid in pids.items()}
        with redis.Redis.from_url(cluster.valkey.url) as client:
            memory = client.info("memory")["used_memory"]
        return {
            "calls": calls,
            "calls_per_second": round(seen["per_second"]),
            "cpu_us_per_call": {name: round(us, 1) for name, us in used.items()},
            "resident_mb": {name: round(resident_mb([pid]), 1) for name, pid in pids.items()},
            "stream_bytes_per_call": round((_stream_bytes(cluster) - stored) / calls),
            "clickhouse_bytes_per_call": round((_disk_bytes(cluster) - rows) / calls),
            "valkey_bytes": memory,
        }


def _stream_bytes(cluster: Cluster) -> int:
    async def read(bus: Bus) -> int:
        return int((await bus.client.jetstream().stream_info(EVENTS)).state.bytes)

    return cluster.on_the_bus(read)


def _disk_bytes(cluster: Cluster) -> int:
    """Return the compressed bytes of the rows in the active parts of the tables."""
    sql = "SELECT sum(data_compressed_bytes) AS bytes FROM system.parts WHERE active"
    return int(cluster.eventual_rows(sql)[0]["bytes"] or 0)


@contextmanager
def _cluster() -> Iterator[Cluster]:
    """Run one of each service, and an upstream."""
    with tempfile.TemporaryDirectory(prefix="toolbus-scale-") as name:
        cluster = Cluster(Path(name))
        with Upstream(Path(name) / "upstream").running() as upstream:
            declared = Configuration(
                servers={"echo": Server(url=upstream.url)},
                keys={"bot": key(SECRET, budget=Budget(usd=1_000_000, per=Period.MONTH))},
                prices={"echo__*": 0.001},
            )
            with cluster.running(declared):
                cluster.until_listed(cluster.client(SECRET), "echo__count")
                yield cluster


if __name__ == "__main__":
    sys.exit(main())
