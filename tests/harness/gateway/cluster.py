"""Complete Toolbus with separate processes that a test can kill, freeze or replicate."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from harness.clients.bus_operator import BusOperator
from harness.clients.mcp_client import Client
from harness.engines.bus_reset import provisioned
from harness.engines.engine import BEGIN_SECONDS, Engine, die_with_parent, own_port
from harness.engines.migrated_tables import migrated
from harness.engines.nats_server import NatsServer
from harness.engines.valkey_server import ValkeyServer
from harness.gateway.forked_services import Forked
from toolbus_common.config import Configuration

PROGRAMS = Path(__file__).parents[1] / "programs"
RUN = "plain_services.py"
ENDING_SECONDS = 60.0  # timeout of a failed run


class Upstream(Engine):
    """A process of `harness.upstreams.call_log_server`, with its log of received calls."""

    def command(self) -> list[str]:
        """Return the command line."""
        program = Path(__file__).parents[1] / "upstreams" / "call_log_server.py"
        return [sys.executable, str(program), str(self.port), str(self.call_log)]

    @property
    def call_log(self) -> Path:
        """The log file, with one line of JSON for each received call."""
        return self.directory / "journal"

    @property
    def url(self) -> str:
        """The URL of the MCP endpoint."""
        return f"http://127.0.0.1:{self.port}/mcp"

    def arrived(self) -> list[dict[str, Any]]:
        """Return the received calls. A line that is being written is omitted."""
        text = self.call_log.read_text() if self.call_log.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]


class Process:
    """A process with one or more services.

    Tests fork it, which takes a tenth of the time of a start. Measurements of memory start it
    instead.
    """

    forks = False

    def __init__(
        self,
        services: Iterable[str],
        environment: dict[str, str],
        log: Path,
        program: str = RUN,
    ) -> None:
        self.services = tuple(services)
        self.program = program
        self._log = log
        if self.forks:
            self._process: Forked | subprocess.Popen[bytes] = Forked(
                PROGRAMS / program, list(self.services), environment, log
            )
            return
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, str(PROGRAMS / program), *self.services],
                env=environment,
                stdout=output,
                stderr=output,
                preexec_fn=die_with_parent,  # noqa: PLW1509
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def log(self) -> str:
        """The log so far."""
        return self._log.read_text()

    def wait_ready(self) -> None:
        """Wait for the log event `process.ready`.

        Raises `RuntimeError` with the end of the log if the process exits first.
        """
        give_up = time.monotonic() + BEGIN_SECONDS
        while '"process.ready"' not in self.log:
            if self._process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"{self.services} did not begin:\n{self.log[-3000:]}")
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill the process with SIGKILL, which resembles a power failure."""
        self.stop(signal.SIGKILL)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        self.signal(number)
        return self.ended()

    def ended(self) -> int:
        """Wait for the end of the process, and return the exit code."""
        try:
            return self._process.wait(ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None


class Cluster(BusOperator):
    """NATS, Valkey and services as separate processes.

    `fused` runs the call path in one process.
    """

    def __init__(self, directory: Path, **environment: str) -> None:
        self.state_dir = directory / "state"
        self._extra = environment
        self.nats = NatsServer(self.state_dir / "nats")
        self.valkey = ValkeyServer(directory / "valkey")
        self.processes: dict[str, list[Process]] = {}
        self.nats_url = self.nats.url
        self.fused = False
        self.program = RUN
        self.ops: dict[str, str] = {}  # HOST:PORT of each service's operations listener
        self._started = 0
        self._ports: list[int] = []

    def start(
        self,
        configuration: Configuration,
        *,
        fused: bool = False,
        replicas: int = 1,
        additional: tuple[str, ...] = (),
    ) -> None:
        """Start the call path, audit and `additional` services. Wait until all are ready."""
        self.fused = fused
        self.nats.start()
        self.valkey.start()
        self.nats.copy_seeds(self.state_dir)
        migrated(self.state_dir)
        asyncio.run(provisioned(self.nats))
        self.declare(configuration)
        path = ("ingress", "policy", "executor", *additional)
        services = (
            ["audit", "+".join(path)] if fused else [*additional, "audit", "executor", "policy"]
        )
        for name in [*services, *([] if fused else ["ingress"])]:
            for _ in range(1 if name in ("audit", *additional) else replicas):
                self.run(name)
        for process in self.every():
            process.wait_ready()

    @contextmanager
    def running(self, configuration: Configuration, **options: Any) -> Iterator[Self]:
        """Run until the context ends. The options are those of `start`."""
        try:
            self.start(configuration, **options)
            yield self
        finally:
            self.stop()

    def run(self, name: str, program: str = "") -> Process:
        """Start another process of the services `name`, which are joined by `+`."""
        self._started += 1
        services = name.split("+")
        process = Process(
            services, self._environment(services), self._log(name), program or self.program
        )
        self.processes.setdefault(name, []).append(process)
        return process

    @property
    def services(self) -> int:
        """The number of running services. Each replica is counted."""
        return sum(len(process.services) for process in self.every() if process.alive)

    def every(self) -> list[Process]:
        """Return all processes of services."""
        return [process for replicas in self.processes.values() for process in replicas]

    def client(self, key: str, replica: int = 0) -> Client:
        """Return a client of one ingress replica."""
        return Client(f"http://127.0.0.1:{self._ports[replica]}/mcp", key)

    def forget_port(self, replica: int) -> None:
        """Remove the port of an ingress replica. The next replica gets its number."""
        del self._ports[replica]

    def stop(self) -> None:
        """Stop all processes. Kill processes that do not end."""
        for process in self.every():
            process.signal(signal.SIGCONT)
            process.kill()
        self.valkey.kill()
        self.nats.kill()

    def _log(self, name: str) -> Path:
        return self.state_dir / f"{self._started:02}-{name}.log"

    def _environment(self, services: list[str]) -> dict[str, str]:
        fields = {
            "TOOLBUS_STATE_DIR": str(self.state_dir),
            "TOOLBUS_NATS_URL": self.nats.url,
            "TOOLBUS_REDIS_URL": self.valkey.url,
            "TOOLBUS_DRAIN_SECONDS": "5",
            "TOOLBUS_CALL_TIMEOUT": "8",
            "TOOLBUS_REDIS_TIMEOUT": "5",
        }
        if "ingress" in services:
            self._ports.append(own_port())
            fields["TOOLBUS_HTTP_PORT"] = str(self._ports[-1])
        fields["TOOLBUS_OPS_LISTEN"] = listen = f"127.0.0.1:{own_port()}"
        self.ops |= dict.fromkeys(services, listen)
        kept = {name: value for name, value in os.environ.items() if "TOOLBUS" not in name}
        return {**kept, **fields, **self._extra}
