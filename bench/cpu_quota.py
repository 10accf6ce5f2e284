"""A share of a core for processes, by a control group of either version."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PERIOD = 50_000  # microseconds; the kernel accepts no quota below 1,000
_ROOT = Path("/sys/fs/cgroup")
_FIRST = _ROOT / "cpu"  # exists with version 1 only


class CpuQuota:
    """A control group of its own."""

    def __init__(self, name: str, share: float) -> None:
        parent = _FIRST if _FIRST.is_dir() else _ROOT
        self._group = parent / f"toolbus-{os.getpid()}-{name}"
        self._quota = int(share * _PERIOD)

    @contextmanager
    def created(self) -> Iterator["CpuQuota"]:
        """Limit the processes until the context ends; they must have ended by then."""
        self._group.mkdir()
        try:
            if _FIRST.is_dir():
                self._write("cpu.cfs_period_us", _PERIOD)
                self._write("cpu.cfs_quota_us", self._quota)
            else:
                self._write("cpu.max", f"{self._quota} {_PERIOD}")
            yield self
        finally:
            self._remove()

    def add(self, pid: int) -> None:
        """Limit a process."""
        self._write("cgroup.procs", pid)

    def _write(self, name: str, value: object) -> None:
        (self._group / name).write_text(str(value))

    def _remove(self) -> None:
        root = self._group.parent / "cgroup.procs"
        for pid in (self._group / "cgroup.procs").read_text().split():
            root.write_text(pid)
        time.sleep(0.1)
        self._group.rmdir()
