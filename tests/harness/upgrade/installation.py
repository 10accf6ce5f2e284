"""NATS, Valkey, ClickHouse, and two replicas of each service, each of one of two versions."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from harness.clients.bus_operator import BusOperator
from harness.engines.clickhouse_server import ClickHouseServer
from harness.engines.engine import Engine, die_with_parent, installed, own_port
from harness.engines.valkey_server import ValkeyServer
from harness.gateway.cluster import Upstream
from harness.gateway.rolling_restart import REPLICAS
from harness.upgrade.version import Version
from harness.waits import until_blocking

KEY, CODER = "tbk_bot_a-secret-of-the-upgrade", "tbk_coder_a-secret-of-the-upgrade"
PRICE = 1_000  # micro-dollars
PUBLIC_URL = "http://gateway.test"
END_SECONDS = 60.0
# Readers of a message before its senders: a version adds fields and events, and removes none.
UPGRADE = ("audit", "oauth", "executor", "codemode", "policy", "ingress")
DOWNGRADE = UPGRADE[::-1]
# What the first replica creates at its first start, and the others need.
CREATED = {"audit": ("evidence",), "oauth": ("oauth-*.json",)}
SETTINGS = {
    "TOOLBUS_PUBLIC_URL": PUBLIC_URL,
    "TOOLBUS_CALL_TIMEOUT": "8",
    "TOOLBUS_DRAIN_SECONDS": "5",
    "TOOLBUS_DRAIN_DELAY": "1",  # twenty probes of the balancer
}


class Nats(Engine):
    """A NATS server with the configuration that a version writes."""

    def configure(self, version: Version) -> None:
        """Write the configuration, and let a running server read it."""
        store = str(self.directory / "store")
        port = ("--port", str(self.port))
        version.run("nats-config", str(self.directory), *port, "--store-dir", store)
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)

    def command(self) -> Sequence[str]:
        """Return the command line."""
        return [installed("nats-server"), "--config", str(self.directory / "nats.conf")]


@dataclass
class Replica:
    """One replica of a service. Its state directory and ports outlive its process."""

    service: str
    state_dir: Path
    environment: dict[str, str]
    version: Version
    starts: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """The log of its newest process."""
        return self.state_dir / f"log-{self.starts}"

    def start(self) -> None:
        """Start its process."""
        self.starts += 1
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [self.version.command, "run", self.service],
                env=self.environment,
                stdout=output,
                stderr=output,
                preexec_fn=die_with_parent,  # noqa: PLW1509
            )

    def wait_ready(self) -> None:
        """Wait until `/readyz` answers 200."""
        until_blocking(self.is_ready, f"{self.service} of {self.version.name} is ready", 120)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to its process."""
        if self.process is not None:
            self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for the end of its process, and return the exit code."""
        if self.process is None:
            return 0
        code, self.process = self.process.wait(END_SECONDS), None
        return code

    def is_ready(self) -> bool:
        """Return whether `/readyz` answers 200. Raises `RuntimeError` if the process has ended."""
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.service} ended:\n{self.log.read_text()[-3000:]}")
        connection = HTTPConnection(self.environment["TOOLBUS_OPS_LISTEN"], timeout=1)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()


class Installation(BusOperator):
    """The whole installation. `use` replaces the replicas of a service by another version's."""

    def __init__(self, directory: Path, first: Version) -> None:
        self.nats = Nats(directory / "bus")
        self.valkey = ValkeyServer(directory / "valkey")
        self.clickhouse = ClickHouseServer(directory / "clickhouse")
        self.upstream = Upstream(directory / "upstream")
        self.nats_url = f"nats://127.0.0.1:{self.nats.port}"
        self.state_dir = directory / "bus"  # also the operator's
        self.replicas: dict[str, list[Replica]] = {}
        self.edges: dict[str, str] = {}  # endpoint -> HOST:PORT of its operations listener
        self._directory = directory
        self._first = first

    @property
    def services(self) -> int:
        """The number of running replicas."""
        return sum(map(len, self.replicas.values()))

    @contextmanager
    def running(self) -> Iterator["Installation"]:
        """Run everything with the first version until the context ends."""
        with ExitStack() as stack:
            self.nats.configure(self._first)
            for engine in (self.nats, self.valkey, self.clickhouse, self.upstream):
                stack.enter_context(engine.running())
            stack.callback(self._kill)
            self.toolbus(self._first, "provision", "--events-gib", "1")
            self.apply(self._first, declared(self.upstream.url))
            for service in UPGRADE:
                self._start(service)
            yield self

    def toolbus(self, version: Version, *words: str) -> str:
        """Run an operator's command of a version."""
        at = ("--state-dir", str(self.state_dir))
        return version.run(*words, *at, TOOLBUS_NATS_URL=self.nats_url)

    def apply(self, version: Version, configuration: dict[str, Any]) -> None:
        """Apply a configuration by the command of a version."""
        path = self._directory / "toolbus.yaml"
        path.write_text(json.dumps(configuration))
        self.toolbus(version, "apply", "-f", str(path), "--yes")

    def prepare(self, version: Version) -> None:
        """Let NATS and the streams have what a version needs."""
        self.nats.configure(version)
        self.toolbus(version, "provision")

    def use(self, services: Sequence[str], version: Version) -> Iterator[int]:
        """Replace a replica of each of these services at the same time, and then the next ones."""
        for number in range(REPLICAS):
            leaving = [self.replicas[service][number] for service in services]
            for each in leaving:
                each.signal(signal.SIGTERM)
            for each in leaving:
                assert each.ended() == 0, each.log.read_text()[-3000:]
                each.version = version
                each.start()
            for each in leaving:
                each.wait_ready()
            yield number

    def is_ready(self) -> bool:
        """Return whether `/readyz` of every replica answers 200."""
        return all(each.is_ready() for replicas in self.replicas.values() for each in replicas)

    def _start(self, service: str) -> None:
        """Start the replicas of a service; the later ones get the files that the first created."""
        for number in range(REPLICAS):
            own = self._directory / f"{service}-{number + 1}"
            shutil.copytree(self.state_dir, own, ignore=shutil.ignore_patterns("store", "log"))
            environment = self._environment(service, own)
            replica = Replica(service, own, environment, self._first)
            self.replicas.setdefault(service, []).append(replica)
            replica.start()
            replica.wait_ready()
            created = [path for name in CREATED.get(service, ()) for path in own.glob(name)]
            for path in created if number == 0 else []:
                copy = shutil.copytree if path.is_dir() else shutil.copy
                copy(path, self.state_dir / path.name)

    def _environment(self, service: str, state_dir: Path) -> dict[str, str]:
        listen = f"127.0.0.1:{own_port()}"
        found = {
            **SETTINGS,
            "TOOLBUS_STATE_DIR": str(state_dir),
            "TOOLBUS_NATS_URL": self.nats_url,
            "TOOLBUS_REDIS_URL": self.valkey.url,
            "TOOLBUS_CLICKHOUSE_URL": self.clickhouse.url,
            "TOOLBUS_OPS_LISTEN": listen,
        }
        if service == "ingress":
            port = own_port()
            found["TOOLBUS_HTTP_PORT"] = str(port)
            self.edges[f"http://127.0.0.1:{port}/mcp"] = listen
        kept = {name: value for name, value in os.environ.items() if "TOOLBUS" not in name}
        return kept | found

    def _kill(self) -> None:
        for replicas in self.replicas.values():
            for each in replicas:
                each.signal(signal.SIGKILL)
                each.ended()


def declared(url: str) -> dict[str, Any]:
    """Return the configuration: a server, two keys, and a rule for a machine."""
    budget = {"usd": 1_000_000, "per": "month"}
    return {
        "servers": {"echo": {"url": url}},
        "keys": {
            "bot": {"secret": KEY, "tools": ["*"], "budget": budget},
            "coder": {"secret": CODER, "tools": ["*"], "code_mode": True, "budget": budget},
        },
        "access": {
            "nightly": {"issuer": "machines", "claims": {"client": "nightly"}, "tools": ["echo__*"]}
        },
        "prices": {"echo__*": PRICE / 1_000_000},
    }


def machine(place: Installation, version: Version) -> tuple[str, str]:
    """Create an OAuth client, and return its id and its secret."""
    made = json.loads(place.toolbus(version, "clients", "add", "nightly", "--json"))
    return str(made["id"]), str(made["secret"])
