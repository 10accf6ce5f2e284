"""Three NATS servers, two of Valkey, ClickHouse, two replicas of each service, as processes."""

import asyncio
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError

from cluster_faults.ledger_servers import LedgerServers
from cluster_faults.load import RecordedLoad
from cluster_faults.network import Disks, Link, links
from harness.clients.bus_operator import BusOperator, key
from harness.clients.mcp_client import Client
from harness.engines.clickhouse_server import ClickHouseServer
from harness.engines.engine import own_port
from harness.engines.nats_cluster import ClusterNode, declared_nodes, running
from harness.gateway.cluster import Process, Upstream
from harness.gateway.rolling_restart import Balancer
from harness.waits import until_async, until_blocking
from toolbus_cli.commands.operate.run import KEYS
from toolbus_common.config import Budget, Configuration, Period, Server
from toolbus_common.config_store.literal_secrets import create_encryption_keys
from toolbus_common.crypto.key_file import load_key
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.provision import provision
from toolbus_common.nats.topology import EVENTS
from toolbus_common.service.names import SERVICES

KEY = "tbk_bot_a-secret-of-the-cluster"
PRICE = 1_000  # micro-dollars
REPLICAS = 2
COPIES = 3
SETTINGS = {
    "TOOLBUS_CALL_TIMEOUT": "8",
    "TOOLBUS_DRAIN_SECONDS": "5",
    "TOOLBUS_DRAIN_DELAY": "1",  # twenty probes of the balancer
}
# Sizes of file systems, in megabytes: of a NATS server's streams, and of audit's state directory.
STREAMS_DISK, AUDIT_DISK = 1024, 512
# What the first replica creates at its first start, and the others need.
CREATED = {"audit": ("evidence",), "oauth": ("oauth-*.json",)}


@dataclass
class Replica:
    """One replica of a service; its state directory and ports outlive its process."""

    service: str
    state_dir: Path
    environment: dict[str, str]
    starts: int = 0
    process: Process | None = None

    def start(self, **more: str) -> None:
        """Start its process with `more` settings, and wait until it is ready."""
        self.starts += 1
        log = self.state_dir.with_name(f"{self.state_dir.name}-log-{self.starts}")
        self.process = Process([self.service], self.environment | more, log)
        self.process.wait_ready()

    def end(self, number: signal.Signals) -> None:
        """Send a signal to its process, and wait for its end."""
        if self.process is not None:
            self.process.stop(number)
            self.process = None


class Installation(BusOperator):
    """The whole installation, and a load through a balancer that follows readiness."""

    def __init__(self, directory: Path, rate: float) -> None:
        self.state_dir = directory / "operator"
        self.rate = rate
        self.valkey = LedgerServers(directory / "valkey")
        self.clickhouse = ClickHouseServer(directory / "clickhouse")
        self.upstream = Upstream(directory / "upstream")
        self.nodes: list[ClusterNode] = []
        self.links: dict[str, Link] = {}  # by the server's host
        self.replicas: dict[str, list[Replica]] = {}
        self.edges: dict[str, str] = {}  # endpoint -> HOST:PORT of its operations listener
        self.directory = directory
        self._disks = Disks()

    @property
    def services(self) -> int:
        """The number of running replicas."""
        every = (each for replicas in self.replicas.values() for each in replicas)
        return sum(each.process is not None and each.process.alive for each in every)

    @contextmanager
    def running(self) -> Iterator["Installation"]:
        """Run everything until the context ends."""
        seeds = self.state_dir / "nkeys"
        with ExitStack() as stack:
            stack.callback(self._disks.unmount)
            made = stack.enter_context(links(COPIES))
            self.links = {each.host: each for each in made}
            entries = {each.host: each.entry for each in made}
            declared = declared_nodes(self.directory / "nats", seeds, None, entries)
            for node in declared:
                self._disks.mount(node.store, STREAMS_DISK)
            self.nodes = stack.enter_context(running(declared))
            for name in KEYS:
                load_key(self.state_dir / name)
            create_encryption_keys(self.state_dir / "encryption")
            for engine in (self.valkey, self.clickhouse, self.upstream):
                stack.enter_context(engine.running())
            self.nats_url = ",".join(each.url for each in self.nodes)
            stack.callback(self._stop)
            self._provision()
            self.declare(_configuration(self.upstream.url))
            for service in SERVICES:
                self._start(service)
            for url in self.edges:
                self.until_listed(Client(url, KEY), "echo__count")
            yield self

    @contextmanager
    def loaded(self, rate: float = 0.0) -> Iterator[RecordedLoad]:
        """Make calls until the context ends and the last one has a response."""
        with Balancer(self.edges).running() as balancer:
            load = RecordedLoad(
                balancer.endpoint, KEY, KEY, rate or self.rate, ("count", "wait", "count")
            )
            thread = Thread(target=lambda: asyncio.run(load.work()))
            thread.start()
            try:
                yield load
            finally:
                load.stop()
                thread.join()

    def leader(self) -> ClusterNode:
        """Return the server that leads the stream of events."""

        async def look(bus: Bus) -> str:
            info = await bus.client.jetstream(timeout=10).stream_info(EVENTS)
            return str(info.cluster.leader if info.cluster else "")

        name = self.on_the_bus(look)
        return next(node for node in self.nodes if node.directory.name == name)

    def follower(self, number: int) -> ClusterNode:
        """Return one of the two servers that do not lead the stream of events."""
        leader = self.leader()
        return [node for node in self.nodes if node is not leader][number]

    def link(self, node: ClusterNode) -> Link:
        """Return the link of a NATS server."""
        return self.links[node.host]

    def until_whole(self) -> None:
        """Wait until every stream has three current copies and every replica is ready."""
        until_blocking(lambda: self.on_the_bus(_is_replicated), "three current copies")
        until_blocking(self._is_ready, "every replica is ready")
        self.valkey.until_in_step()

    def _is_ready(self) -> bool:
        statuses = self.statuses()
        return len(statuses) == self.services and all(each.ready for each in statuses)

    def _provision(self) -> None:
        async def provisioned(bus: Bus) -> bool:
            try:
                await bus.client.jetstream(timeout=5).account_info()
                await provision(bus, replicas=len(self.nodes), default_events_bytes=1 << 30)
            except (NatsError, JetStreamError, TimeoutError):
                return False
            return True

        async def until_provisioned(bus: Bus) -> None:
            await until_async(lambda: provisioned(bus), "streams and buckets")

        self.on_the_bus(until_provisioned)

    def _start(self, service: str) -> None:
        """Start the replicas of a service; the later ones get the files that the first created."""
        for number in range(REPLICAS):
            own = self.directory / f"{service}-{number + 1}"
            if service == "audit":
                self._disks.mount(own, AUDIT_DISK)
            shutil.copytree(self.state_dir, own, dirs_exist_ok=True)
            replica = Replica(service, own, self._environment(service, number, own))
            self.replicas.setdefault(service, []).append(replica)
            replica.start()
            created = [path for name in CREATED.get(service, ()) for path in own.glob(name)]
            for path in created if number == 0 else []:
                copy = shutil.copytree if path.is_dir() else shutil.copy
                copy(path, self.state_dir / path.name)

    def _environment(self, service: str, number: int, state_dir: Path) -> dict[str, str]:
        urls = [node.url for node in self.nodes]
        turn = (list(SERVICES).index(service) + number) % len(urls)
        listen = f"127.0.0.1:{own_port()}"
        found = {
            **SETTINGS,
            "TOOLBUS_STATE_DIR": str(state_dir),
            "TOOLBUS_NATS_URL": ",".join(urls[turn:] + urls[:turn]),
            "TOOLBUS_REDIS_URL": self.valkey.url,
            "TOOLBUS_CLICKHOUSE_URL": self.clickhouse.url,
            "TOOLBUS_OPS_LISTEN": listen,
        }
        if service == "ingress":
            port = own_port()
            found["TOOLBUS_HTTP_PORT"] = str(port)
            self.edges[f"http://127.0.0.1:{port}/mcp"] = listen
        return _without_settings() | found

    def _stop(self) -> None:
        for replicas in self.replicas.values():
            for each in replicas:
                each.end(signal.SIGKILL)
        for node in self.nodes:
            node.thaw()


async def _is_replicated(bus: Bus) -> bool:
    """Return whether every stream has a leader and two current followers."""
    try:
        every = await bus.client.jetstream(timeout=10).streams_info()
    except (NatsError, JetStreamError, TimeoutError):
        return False
    return all(
        each.cluster
        and each.cluster.leader
        and all(peer.current and not peer.offline for peer in each.cluster.replicas or [])
        for each in every
    )


def _without_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if "TOOLBUS" not in name}


def _configuration(upstream: str) -> Configuration:
    return Configuration(
        servers={"echo": Server(url=upstream)},
        keys={"bot": key(KEY, budget=Budget(usd=1_000_000, per=Period.MONTH))},
        prices={"echo__*": PRICE / 1_000_000},
    )
