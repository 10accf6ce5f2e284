"""The installation of deploy/compose.yaml, in a copy of its directory."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.clients.mcp_client import Client
from harness.compose.images import FULL, ROOT, SLIM
from harness.engines.clickhouse_server import SHIM
from harness.packages.debian import PROMETHEUS

PROJECT = "toolbus-test"
PORTS = range(28080, 28084)  # of replicas of ingress
PROMETHEUS_PORT = 28090
_PACKAGES = ROOT / "tests" / "containers" / "compose.packages.yaml"
_SECONDS = 600.0  # for one command
_SLOW = 300  # seconds in which containers must be healthy


class Installation:
    """Commands of Compose, and requests to the published ports."""

    def __init__(self, directory: Path, *, from_packages: bool) -> None:
        self._directory = directory / "deploy"
        shutil.copytree(ROOT / "deploy", self._directory, ignore=_written)
        files = [self._directory / "compose.yaml", *([_PACKAGES] if from_packages else [])]
        self._options = ["--project-name", PROJECT, "--project-directory", str(self._directory)]
        self._options += [word for file in files for word in ("--file", str(file))]
        self._environment = os.environ | {
            "TOOLBUS_IMAGE": SLIM,
            "TOOLBUS_PORT": f"{PORTS[0]}-{PORTS[-1]}",
            "TOOLBUS_PROMETHEUS_PORT": str(PROMETHEUS_PORT),
            "TOOLBUS_GRAFANA_PORT": "0",
            "TOOLBUS_ENGINES_IMAGE": FULL,
            "TOOLBUS_CLICKHOUSE_SHIM": str(SHIM),
            "TOOLBUS_PROMETHEUS_PROGRAM": PROMETHEUS.found() or "",
        }

    @contextmanager
    def running(self) -> Iterator[None]:
        """Set up and start all containers; at the end, remove them with their volumes."""
        self._run([str(self._directory / "setup.sh")])
        try:
            self.start()
            yield
        except BaseException:
            print(self.compose("ps", "--all"), self.compose("logs", "--tail", "40"))
            raise
        finally:
            self.compose("--profile", "tools", "down", "--volumes", "--timeout", "40")

    def start(self, *options: str) -> None:
        """Start what does not run, and wait until everything is healthy."""
        self.compose(
            "up", "--detach", "--wait", "--wait-timeout", str(_SLOW), "--no-build", *options
        )

    def operator(self, *words: str) -> str:
        """Run a command of `toolbus` in the operator's container, and return its output."""
        return self.compose("run", "--rm", "--no-deps", "operator", *words)

    def compose(self, *words: str) -> str:
        """Run a command of Compose and return its output."""
        return self._run(["docker", "compose", *self._options, *words])

    def containers(self, service: str) -> list[str]:
        """Return the ids of a service's containers."""
        return self.compose("ps", "--quiet", service).split()

    def inspected(self, service: str) -> list[dict[str, Any]]:
        """Return what Docker knows of a service's containers."""
        text = self._run(["docker", "inspect", *self.containers(service)])
        found: list[dict[str, Any]] = json.loads(text)
        return found

    def client(self, key: str) -> Client:
        """Return a client of the first replica of ingress."""
        (container, *_) = self.containers("ingress")
        address = self._run(["docker", "port", container, "8080"]).splitlines()[0]
        return Client(f"http://{address}/mcp", key)

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(
            command, env=self._environment, stdout=subprocess.PIPE, text=True, timeout=_SECONDS,
            check=True,
        )  # fmt: skip
        return done.stdout.strip()


def _written(_: str, names: list[str]) -> set[str]:
    """Return the names of what setup.sh writes."""
    return {".env", "config", "generated"} & set(names)
