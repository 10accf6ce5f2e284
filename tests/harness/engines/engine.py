"""A server process on a free port that tests can kill, freeze and start again."""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

BEGIN_SECONDS = 120.0  # a bound for a broken run, on the busiest of machines
_DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)
_libc = ctypes.CDLL(None)


def die_with_parent() -> None:
    """Run in a child before it executes: it must not outlive a killed test run."""
    _libc.prctl(_DIES_WITH_PARENT, signal.SIGKILL)


def own_port() -> int:
    """A port nobody listens on, kept from everybody else's use until the tests have ended.

    It is bound and never listened on: the system gives it to no other process, for a server or for
    a client's connection, while a server that is told to use it may, and again after a kill.
    """
    kept = bound()
    port = int(kept.getsockname()[1])
    kept.detach()  # open until this process ends
    return port


def own_ports(count: int) -> int:
    """The first of so many that follow one another, each kept as `own_port` does."""
    while True:
        first = own_port()
        with suppress(OSError, OverflowError):
            for port in range(first + 1, first + count):
                bound(port).detach()
            return first


def bound(port: int = 0) -> socket.socket:
    """A port of this machine, or any, that is given to nobody who asks for any. Raises `OSError`.

    Connections of who had it before may take a minute to be over: they are no hindrance.
    """
    kept = socket.socket()
    try:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", port))
    except OSError:
        kept.close()
        raise
    return kept


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until something accepts; fails with the process's own words when it exits instead."""
    give_up = time.monotonic() + BEGIN_SECONDS
    while time.monotonic() < give_up:
        if process.poll() is not None:
            break
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.01)
    raise RuntimeError(f"{process.args!r} does not listen:\n{log.read_text()[-2000:]}")


class Engine:
    """A server process on a port of its own, over a directory that outlives it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = own_port()
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> Sequence[str]:
        """What is executed."""
        raise NotImplementedError

    def start(self) -> None:
        """Start, and return once it accepts connections. The port and the data stay the same."""
        with (self.directory / "log").open("ab") as output:
            self._process = subprocess.Popen(
                self.command(),
                stdout=output,
                stderr=output,
                preexec_fn=die_with_parent,  # noqa: PLW1509
            )
        self.wait_for(self.port)

    def wait_for(self, port: int) -> None:
        """Until it accepts connections there."""
        assert self._process is not None
        wait_for_port(port, self._process, self.directory / "log")

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Started while this is entered, and killed however it ends."""
        try:
            self.start()
            yield self
        finally:
            self.kill()

    def kill(self) -> None:
        """As a power cut would: SIGKILL, and gone on return."""
        self.stop(signal.SIGKILL)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to end and wait until it has."""
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def freeze(self) -> None:
        """Alive but silent, once all of its threads have stopped."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        """Go on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)


def installed(program: str) -> str:
    """A program of this environment. Missing is a failure: tests may not skip what they promise."""
    path = Path(sysconfig.get_path("scripts")) / program
    found = str(path) if path.exists() else shutil.which(program)
    if not found:
        raise RuntimeError(f"{program} is not installed: run make install")
    return found
