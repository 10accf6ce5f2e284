"""The state directory of a local installation: its lock, its paths and its run file."""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolbus_cli.errors import CommandError

_OLDER_NAMES = ("seal", "sealing", "seal.key")  # renamed with ADR 29
EXIT_SECONDS = 45.0  # longer than the services may drain


@dataclass(frozen=True, slots=True)
class State:
    """The paths of one state directory."""

    root: Path

    @property
    def seeds(self) -> Path:
        """The directory of NATS seeds, one file per user."""
        return self.root / "nkeys"

    @property
    def run_file(self) -> Path:
        """The file that describes the running launcher."""
        return self.root / "run.json"

    @property
    def ports_file(self) -> Path:
        """The file with the ports of the last start, which the next start reuses."""
        return self.root / "ports.json"

    def prepare(self) -> None:
        """Create the directory, accessible to its owner only.

        Raises:
            CommandError: the directory cannot be created, or an older build wrote to it.

        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.root.chmod(0o700)
        except OSError as error:
            reason = f"Cannot create the state directory '{self.root}' ({error.strerror})"
            raise CommandError(f"{reason}; set another with --state-dir.") from error
        if older := [name for name in _OLDER_NAMES if (self.root / name).exists()]:
            raise CommandError(
                f"The state directory '{self.root}' has '{older[0]}' of an older build of Toolbus, "
                "which this version does not read. Export the evidence with the old version, then "
                "start with an empty state directory (--state-dir)."
            )

    def running(self) -> dict[str, Any]:
        """Return the contents of the run file; empty if there is none."""
        return read_json(self.run_file)

    def alive(self) -> bool:
        """Return whether the launcher that wrote the run file is alive."""
        pid = self.running().get("pid")
        return isinstance(pid, int) and _lives(pid)

    @contextmanager
    def locked(self, wait: Callable[[str], None]) -> Iterator[int]:
        """Lock the directory; yield the lock's descriptor, which children inherit.

        An engine may continue for a moment after its launcher was killed, and two engines would
        corrupt the directory. The lock is therefore held until all engines have exited. Raises
        `CommandError` if another launcher is alive.
        """
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._acquire(descriptor, wait)
            yield descriptor
        finally:
            os.close(descriptor)

    def _acquire(self, descriptor: int, wait: Callable[[str], None]) -> None:
        give_up = time.monotonic() + EXIT_SECONDS
        reported = False
        while not _try_lock(descriptor):
            if self.alive() or time.monotonic() > give_up:
                pid = self.running().get("pid", "unknown")
                raise CommandError(
                    f"Toolbus is already running on '{self.root}' (process {pid}); stop "
                    "it, or set another directory with --state-dir."
                )
            if not reported:
                wait(f"waiting for processes of an earlier start on {self.root} to exit")
                reported = True
            time.sleep(0.05)


def endpoint_of(state_dir: Path) -> str:
    """Return the URL that agents connect to. Raises `CommandError` if it is unknown."""
    url = os.environ.get("TOOLBUS_URL") or State(state_dir).running().get("endpoint", "")
    if not url:
        raise CommandError(
            f"No Toolbus was started on {state_dir}; start one with 'toolbus up', set "
            "its directory with --state-dir, or set TOOLBUS_URL."
        )
    return str(url)


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, or an empty dictionary if it is missing or invalid."""
    with suppress(OSError, ValueError):
        data = json.loads(path.read_text())
        if isinstance(data, dict):
            return data
    return {}


def write_private(path: Path, data: dict[str, Any]) -> None:
    """Write JSON atomically, readable by the owner only."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(data, file, indent=2)
        file.write("\n")
    draft.replace(path)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
