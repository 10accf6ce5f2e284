"""Gateway that `toolbus up` starts: one command, a configuration file, and a ready file."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import yaml

from harness.clients.bus_operator import BusOperator
from harness.clients.mcp_client import Client
from harness.engines.engine import BEGIN_SECONDS, die_with_parent, installed, own_port
from harness.engines.migrated_tables import migrated
from harness.gateway.forked_commands import COMMAND_SECONDS, PROGRAM, run_forked
from harness.gateway.forked_services import Forked, Streams
from toolbus_common.service.names import SERVICES

ENDING_SECONDS = 120.0  # timeout of a failed run


class Launched(BusOperator):
    """`toolbus up` with a state directory that outlives the process.

    Tests fork it, its services and its commands, because their imports take four seconds of
    processor time. `tests/integration/test_commands.py` and the samples of the README start real
    processes.
    """

    forks = False

    def __init__(self, directory: Path, *options: str, **environment: str) -> None:
        self.directory = directory
        self.state_dir = directory / "state"
        self.config = directory / "toolbus.yaml"
        self.output = directory / "output"
        self.ready: dict[str, Any] = {}
        self.port = own_port()
        self._options = options
        kept = {name: value for name, value in os.environ.items() if "TOOLBUS" not in name}
        fields = {"TOOLBUS_REDIS_TIMEOUT": "5"}  # Valkey is slow on a busy machine
        self.environment = {**kept, **fields, **environment}
        self._process: Forked | subprocess.Popen[bytes] | None = None

    @property
    def services(self) -> int:
        """The number of services."""
        return len(SERVICES)

    def configure(self, document: dict[str, Any]) -> None:
        """Replace toolbus.yaml atomically, because the gateway can read it at any time."""
        written = self.config.with_suffix(".new")
        written.write_text(yaml.safe_dump(document, sort_keys=False))
        written.replace(self.config)

    def command(self) -> list[str]:
        """Return the command line."""
        command = [installed("toolbus"), "up", "--state-dir", str(self.state_dir)]
        command += ["--port", str(self.port), "--ready-file", str(self._ready_file)]
        return [
            *command,
            *(["-c", str(self.config)] if self.config.exists() else []),
            *self._options,
        ]

    def start(self) -> None:
        """Start the gateway, and return when the ready file exists."""
        self._ready_file.unlink(missing_ok=True)
        migrated(self.state_dir)
        self._process = self._begin()
        give_up = time.monotonic() + BEGIN_SECONDS
        while not self._ready_file.exists():
            if self._process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"toolbus up did not begin:\n{self.logs()[-3000:]}")
            time.sleep(0.02)
        self.ready = json.loads(self._ready_file.read_text())
        self.nats_url = self.ready["nats_url"]

    @contextmanager
    def running(self, document: dict[str, Any] | None = None) -> Iterator[Self]:
        """Run with this or the current configuration until the context ends."""
        try:
            if document is not None:
                self.configure(document)
            self.start()
            yield self
        finally:
            self.stop()

    def client(self, key: str) -> Client:
        """Return a client with a key."""
        return Client(self.ready["endpoint"], key)

    def logs(self) -> str:
        """Return the output of the launcher and its services."""
        return self.output.read_text() if self.output.exists() else ""

    def toolbus(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run another `toolbus` command with this installation."""
        command = [installed("toolbus"), *words, "--state-dir", str(self.state_dir)]
        if self.forks:
            return run_forked(command[1:], self.directory, self.environment, stdin)
        return subprocess.run(
            command,
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            input=stdin,
            check=False,
        )

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop the gateway with a signal. Wait for the end, and return the exit code."""
        if self._process is None:
            return 0
        with suppress(ProcessLookupError):
            self._process.send_signal(number)
        try:
            return self._process.wait(ENDING_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _begin(self) -> Forked | subprocess.Popen[bytes]:
        command = self.command()
        if self.forks and command[0] == installed("toolbus"):  # no other version
            streams = Streams(self.output, self.output, directory=self.directory)
            return Forked(PROGRAM, command[1:], self.environment, self.output, streams)
        with self.output.open("ab") as output:
            return subprocess.Popen(
                command,
                cwd=self.directory,
                env=self.environment,
                stdout=output,
                stderr=output,
                preexec_fn=die_with_parent,  # noqa: PLW1509
            )

    @property
    def _ready_file(self) -> Path:
        return self.directory / "ready.json"
