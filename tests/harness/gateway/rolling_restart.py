"""Gateway with two replicas of each service of the call path, restarted one after another."""

import asyncio
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from itertools import count
from pathlib import Path
from threading import Event, Thread

from typer.testing import CliRunner

from harness.clients.bus_operator import key
from harness.clients.steady_load import Load
from harness.gateway.cluster import Cluster, Upstream
from harness.services.ledger_totals import spent_and_reserved
from harness.waits import until_blocking
from toolbus_cli.app import built
from toolbus_common.config import Budget, Configuration, Period, Server

KEY = "tbk_bot_a-secret-of-rolling-restarts"
PRICE = 1_000  # micro-dollars
KINDS = ("count", "wait", "count")
PROBE_SECONDS = 0.05
DRAIN_DELAY = "5"  # seconds; far longer than the balancer needs to follow readiness
REPLICAS = 2
CALL_PATH = ("executor", "policy", "ingress")


class Balancer:
    """Selects a ready ingress for each call, like a load balancer that probes `/readyz`."""

    def __init__(self, edges: Mapping[str, str]) -> None:
        self._edges = edges  # endpoint -> HOST:PORT of its operations listener; may change
        self._ready: list[str] = []
        self._turn = count()
        self._stop = Event()
        self._thread = Thread(target=lambda: asyncio.run(self._probe()))

    @contextmanager
    def running(self) -> Iterator["Balancer"]:
        """Probe until the context ends."""
        self._thread.start()
        try:
            until_blocking(lambda: len(self._ready) == REPLICAS, "every ingress is ready")
            yield self
        finally:
            self._stop.set()
            self._thread.join()

    def endpoint(self) -> str:
        """Return the endpoint of a ready ingress."""
        ready = self._ready
        return ready[next(self._turn) % len(ready)]

    async def _probe(self) -> None:
        while not self._stop.is_set():
            edges = list(self._edges.items())
            answers = await asyncio.gather(*(_is_ready(ops) for _, ops in edges))
            ready = [url for (url, _), is_ready in zip(edges, answers, strict=True) if is_ready]
            self._ready = ready or self._ready
            await asyncio.sleep(PROBE_SECONDS)


class RollingCluster(Cluster):
    """A cluster whose ingress replicas leave a load balancer before they close."""

    def __init__(self, directory: Path, **environment: str) -> None:
        super().__init__(directory, **environment)
        self.edges: dict[str, str] = {}  # endpoint -> HOST:PORT of its operations listener

    def _environment(self, services: list[str]) -> dict[str, str]:
        found = super()._environment(services)
        if "ingress" in services:
            self.edges[f"http://127.0.0.1:{self._ports[-1]}/mcp"] = self.ops["ingress"]
            found["TOOLBUS_DRAIN_DELAY"] = DRAIN_DELAY
        return found


class RollingRestart:
    """The gateway, its upstream, and a load that goes on during all restarts."""

    def __init__(self, directory: Path, rate: float) -> None:
        self.upstream = Upstream(directory / "upstream")
        self.cluster = RollingCluster(directory)
        self._rate = rate

    @contextmanager
    def running(self) -> Iterator["RollingRestart"]:
        """Run all processes."""
        configuration = Configuration(
            servers={"echo": Server(url=self.upstream.url)},
            keys={"bot": key(KEY, budget=Budget(usd=1_000_000, per=Period.MONTH))},
            prices={"echo__*": PRICE / 1_000_000},
        )
        with self.upstream.running(), self.cluster.running(configuration, replicas=REPLICAS):
            for replica in range(REPLICAS):
                self.cluster.until_listed(self.cluster.client(KEY, replica), "echo__count")
            yield self

    @contextmanager
    def loaded(self) -> Iterator[Load]:
        """Make calls through the balancer until the context ends and all have a response."""
        with Balancer(self.cluster.edges).running() as balancer:
            load = Load(balancer.endpoint, KEY, KEY, self._rate, KINDS)
            thread = Thread(target=lambda: asyncio.run(load.work()))
            thread.start()
            try:
                yield load
            finally:
                load.stop()
                thread.join()

    def restart(self, load: Load) -> None:
        """Restart the first replica of every service at once, and then the second ones."""
        for _ in range(REPLICAS):
            leaving = [self.cluster.processes[service].pop(0) for service in CALL_PATH]
            for process in leaving:
                process.signal(signal.SIGTERM)
            for process in leaving:
                assert process.ended() == 0, process.log[-3000:]
            started = [self.cluster.run(service) for service in CALL_PATH]
            for process in started:
                process.wait_ready()
            until_blocking(self._is_ready, "the new replicas are ready")
            enough = len(load.succeeded) + len(KINDS) * REPLICAS
            until_blocking(
                lambda enough=enough: len(load.succeeded) > enough,  # type: ignore[misc]
                "calls after the restart",
            )

    def rotate(self, key: str, stage: str) -> None:
        """Run a stage of the rotation of a key."""
        words = ["rotate", key, "--stage", stage, "--state-dir", str(self.cluster.state_dir)]
        ended = CliRunner().invoke(built(), words)
        assert ended.exit_code == 0, ended.output

    def accepts(self, session: str) -> bool:
        """Return whether the newest ingress knows a session."""
        return (
            self.cluster.client(KEY, -1).request("ping", Mcp_Session_Id=session).status
            == HTTPStatus.OK
        )

    def executed(self, load: Load) -> list[str]:
        """Return the ids of the load's calls that the upstream has recorded."""
        found = (str(each.get("id", "")) for each in self.upstream.arrived())
        return sorted(each for each in found if each.startswith(f"{load.run}."))

    def recorded(self) -> int:
        """Return the number of recorded results."""
        sql = "SELECT uniqExact(call_id) AS calls FROM events WHERE event = 'call.completed'"
        (row,) = self.cluster.eventual_rows(sql)
        return int(row["calls"])

    def charged(self) -> tuple[int, int]:
        """Return the spent and the reserved micro-dollars of the key."""
        return spent_and_reserved(self.cluster.valkey.url)

    def _is_ready(self) -> bool:
        statuses = self.cluster.statuses()
        whole = len(statuses) == self.cluster.services  # a busy replica may not have replied
        return whole and all(each.ready for each in statuses) and self.cluster.up_to_date()


async def _is_ready(ops: str) -> bool:
    """Return whether `/readyz` of an operations listener answers 200."""
    host, _, port = ops.rpartition(":")
    with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        async with asyncio.timeout(1.0):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                return b" 200 " in await reader.readuntil(b"\r\n")
            finally:
                writer.close()
    return False
