"""Server process on a free port. Tests can kill, freeze and restart it."""

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

BEGIN_SECONDS = 120.0  # timeout of a failed run on a busy machine
_DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)
_libc = ctypes.CDLL(None)


def die_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """Send this process a signal when its parent ends. The child calls this before `exec`."""
    _libc.prctl(_DIES_WITH_PARENT, number)


def own_port() -> int:
    """Reserve a free port of this machine until the test process ends.

    The port is bound, but no process listens on it. The kernel gives it to no other process,
    neither to a server nor for a client connection. A server that requests this port can still
    listen on it, even after a kill.
    """
    kept = bound()
    port = int(kept.getsockname()[1])
    kept.detach()  # stays open until this process ends
    return port


def own_ports(count: int) -> int:
    """Reserve `count` consecutive ports in the same way as `own_port`. Return the first port."""
    while True:
        first = own_port()
        with suppress(OSError, OverflowError):
            for port in range(first + 1, first + count):
                bound(port).detach()
            return first


def bound(port: int = 0) -> socket.socket:
    """Bind a port, or any free port, so that the kernel gives it to no other process.

    Connections of the previous owner in TIME_WAIT are no obstacle. Raises `OSError`.
    """
    kept = socket.socket()
    try:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", port))
    except OSError:
        kept.close()
        raise
    return kept


def wait_for_port(
    port: int, process: subprocess.Popen[bytes], log: Path, host: str = "127.0.0.1"
) -> None:
    """Wait until the port accepts connections.

    Raises `RuntimeError` with the end of the log if the process exits first, or after the time
    limit.
    """
    give_up = time.monotonic() + BEGIN_SECONDS
    while time.monotonic() < give_up:
        if process.poll() is not None:
            break
        with suppress(OSError), socket.create_connection((host, port), timeout=1):
            return
        time.sleep(0.01)
    raise RuntimeError(f"{process.args!r} does not listen:\n{log.read_text()[-2000:]}")


class Engine:
    """A server process on a separate port. Its directory outlives the process."""

    host = "127.0.0.1"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = own_port()
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> Sequence[str]:
        """Return the command line."""
        raise NotImplementedError

    def start(self) -> None:
        """Start the process, and return when it accepts connections.

        Port and data are the same after every start.
        """
        with (self.directory / "log").open("ab") as output:
            self._process = subprocess.Popen(
                self.command(),
                stdout=output,
                stderr=output,
                preexec_fn=die_with_parent,  # noqa: PLW1509
            )
        self.wait_for(self.port)

    @property
    def pid(self) -> int:
        """The process id; the process must run."""
        assert self._process is not None
        return self._process.pid

    def wait_for(self, port: int) -> None:
        """Wait until the process accepts connections on a port."""
        assert self._process is not None
        wait_for_port(port, self._process, self.directory / "log", self.host)

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Run the process until the context ends, then kill it."""
        try:
            self.start()
            yield self
        finally:
            self.kill()

    def kill(self) -> None:
        """Kill the process with SIGKILL, which resembles a power failure, and wait for its end."""
        self.stop(signal.SIGKILL)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal, and wait for the end of the process. Kill it after ten seconds."""
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        if self._process is not None:
            self._process.send_signal(number)

    def freeze(self) -> None:
        """Stop all threads with SIGSTOP, and return when the process is stopped."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        """Continue a frozen process."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)


def installed(program: str) -> str:
    """Return the path of a program of this environment.

    Raises `RuntimeError` if it does not exist.
    """
    path = Path(sysconfig.get_path("scripts")) / program
    found = str(path) if path.exists() else shutil.which(program)
    if not found:
        raise RuntimeError(f"{program} is not installed: run make install")
    return found
