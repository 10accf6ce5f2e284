"""Services and commands, forked from a process that has already imported them. They start fast."""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import connection, forkserver
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
        "harness.programs.forked_toolbus",
        "harness.programs.frozen_imports",
    ]
)
_reaping = threading.Lock()  # of two threads that read the exit code, one gets another code
_TESTS = str(Path(__file__).parents[2])  # the forkserver imports the harness from there


@dataclass(frozen=True)
class Streams:
    """The files of a process's standard streams, and its working directory."""

    output: Path
    errors: Path
    input: Path = Path(os.devnull)
    directory: Path | None = None


class Forked:
    """A forked process with the part of the `subprocess.Popen` interface that tests use."""

    def __init__(
        self,
        program: Path,
        words: Sequence[str],
        environment: dict[str, str],
        log: Path,
        streams: Streams | None = None,
    ) -> None:
        if streams is None:
            log.touch()
            streams = Streams(output=log, errors=log)
        given = (program, words, environment, streams)
        self._process = _forking.Process(target=_begin, args=given, daemon=True)
        with _reaping:  # a start reads the exit codes of all processes
            _ensure_forkserver()
            self._process.start()
        self.pid = int(self._process.pid or 0)

    @property
    def sentinel(self) -> int:
        """The descriptor that is readable once the process has ended."""
        return self._process.sentinel

    def poll(self) -> int | None:
        """Return the exit code; None while the process runs."""
        with _reaping:
            return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and return the exit code. Raises `subprocess.TimeoutExpired`."""
        connection.wait([self.sentinel], timeout)
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


def _begin(
    program: Path, words: Sequence[str], environment: dict[str, str], streams: Streams
) -> None:
    """Run a program with these arguments and this environment."""
    die_with_parent()
    # The forkserver ends once nothing holds this descriptor: neither the tests nor their processes.
    os.close(forkserver._forkserver._forkserver_alive_fd)  # type: ignore[attr-defined]
    tests = multiprocessing.parent_process()
    if tests is None or not tests.is_alive():
        return  # the forkserver ends too, or ended before it could be watched
    with (
        streams.input.open("rb") as given,
        streams.output.open("ab") as output,
        streams.errors.open("ab") as errors,
    ):
        os.dup2(given.fileno(), 0)
        os.dup2(output.fileno(), sys.stdout.fileno())
        os.dup2(errors.fileno(), sys.stderr.fileno())
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - the forkserver has closed its own
    if streams.directory is not None:
        os.chdir(streams.directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [str(program), *words]
    runpy.run_path(str(program), run_name="__main__")
