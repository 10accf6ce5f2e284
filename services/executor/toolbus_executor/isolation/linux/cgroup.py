"""Limits on the sum of all processes of a server, with control groups version 2.

The operator configures a directory that is delegated to the executor and has the controllers.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # importing `typing` would take longer than all other imports
if TYPE_CHECKING:
    from typing import Any

_PERIOD = 100_000  # microseconds; `cpu.max` grants a share of each period
_MEBIBYTE = 1 << 20


def values(limits: dict[str, Any]) -> dict[str, str]:
    """Return the content of each file of a control group, by file name."""
    files = {
        "memory.max": str(limits["memory"] * _MEBIBYTE),
        "memory.oom.group": "1",
        "pids.max": str(limits["processes"]),
    }
    share = {"cpu.max": f"{int(limits['cpu'] * _PERIOD)} {_PERIOD}"} if limits["cpu"] else {}
    return files | share


def enter(parent: str, child: int, limits: dict[str, Any]) -> dict[str, bool]:
    """Move a process into the control group of this supervisor.

    Return whether each limit is in force.
    """
    sweep(parent)
    group = group_path(parent)
    try:
        os.mkdir(group)
    except OSError:
        return {}
    written = {name: _write(f"{group}/{name}", value) for name, value in values(limits).items()}
    entered = _write(f"{group}/cgroup.procs", str(child))
    return {name: entered and well for name, well in written.items()}


def leave(parent: str) -> None:
    """End all processes in the group of this supervisor, and remove the group."""
    _write(f"{group_path(parent)}/cgroup.kill", "1")
    _remove(group_path(parent))


def ran_out(parent: str) -> bool:
    """Return whether the kernel ended a process of the group because memory was exhausted."""
    try:
        with open(f"{group_path(parent)}/memory.events") as files:
            return any(line.startswith("oom_kill ") and int(line[9:]) for line in files)
    except (OSError, ValueError):
        return False


def sweep(parent: str) -> None:
    """Remove the groups of supervisors that no longer run."""
    for name in os.listdir(parent) if os.path.isdir(parent) else ():
        if name.isdigit() and not os.path.exists(f"/proc/{name}"):
            _remove(f"{parent}/{name}")


def group_path(parent: str) -> str:
    """Return the path of this supervisor's control group."""
    return f"{parent}/{os.getpid()}"


def _remove(group: str) -> None:
    try:
        os.rmdir(group)
    except OSError:  # a process has not ended yet: the next supervisor removes the group
        return


def _write(path: str, text: str) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY)
    except OSError:
        return False
    try:
        os.write(descriptor, text.encode())
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
