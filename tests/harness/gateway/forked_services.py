"""Services that are forked from a process that has already imported them. They start fast."""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from multiprocessing import forkserver
from pathlib import Path

from harness.engines.engine import die_with_parent
from toolbus_common.service.names import SERVICES

_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload(
    [
        "__main__",
        "toolbus_common.service.process",
        *(f"toolbus_{service}.main" for service in SERVICES),
        __name__,
        "harness.programs.frozen_imports",
    ]
)
_TESTS = str(Path(__file__).parents[2])  # the forkserver imports the harness from there


class Forked:
    """A forked process with the part of the `subprocess.Popen` interface that tests use."""

    def __init__(
        self, program: Path, services: list[str], environment: dict[str, str], log: Path
    ) -> None:
        log.touch()
        _ensure_forkserver()
        self._process = _forking.Process(
            target=_begin, args=(program, services, environment, log), daemon=True
        )
        self._process.start()
        self.pid = int(self._process.pid or 0)

    def poll(self) -> int | None:
        """Return the exit code; None while the process runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and return the exit code. Raises `subprocess.TimeoutExpired`."""
        self._process.join(timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        self.send_signal(signal.SIGKILL)


def _ensure_forkserver() -> None:
    """Start the forkserver once; a fork gets its variables later."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (_TESTS, before)))
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _begin(program: Path, services: list[str], environment: dict[str, str], log: Path) -> None:
    """Run a program with services as its arguments, and with this environment and log."""
    die_with_parent()
    with log.open("ab") as output:
        os.dup2(output.fileno(), sys.stdout.fileno())
        os.dup2(output.fileno(), sys.stderr.fileno())
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [str(program), *services]
    runpy.run_path(str(program), run_name="__main__")
