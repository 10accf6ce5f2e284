"""Limits that hold for all processes of a server together, where there is a control group for it.

Version 2 only: an operator names a directory that is delegated to us and has the controllers.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # `typing` would cost more to import than all the rest
if TYPE_CHECKING:
    from typing import Any

_PERIOD = 100_000  # microseconds, of which a share is given
_MEBIBYTE = 1 << 20


def values(limits: dict[str, Any]) -> dict[str, str]:
    """What is written to which file of a group."""
    told = {
        "memory.max": str(limits["memory"] * _MEBIBYTE),
        "memory.oom.group": "1",
        "pids.max": str(limits["processes"]),
    }
    share = {"cpu.max": f"{int(limits['cpu'] * _PERIOD)} {_PERIOD}"} if limits["cpu"] else {}
    return told | share


def enter(parent: str, child: int, limits: dict[str, Any]) -> dict[str, bool]:
    """Put a process into a group of its own; which of its limits are in force."""
    sweep(parent)
    group = place(parent)
    try:
        os.mkdir(group)
    except OSError:
        return {}
    written = {name: _wrote(f"{group}/{name}", value) for name, value in values(limits).items()}
    entered = _wrote(f"{group}/cgroup.procs", str(child))
    return {name: entered and well for name, well in written.items()}


def leave(parent: str) -> None:
    """End whatever is left in the group, and the group."""
    _wrote(f"{place(parent)}/cgroup.kill", "1")
    _remove(place(parent))


def ran_out(parent: str) -> bool:
    """Whether anything in the group was ended because there was no memory left."""
    try:
        with open(f"{place(parent)}/memory.events") as told:
            return any(line.startswith("oom_kill ") and int(line[9:]) for line in told)
    except (OSError, ValueError):
        return False


def sweep(parent: str) -> None:
    """Remove the groups of those who could not."""
    for name in os.listdir(parent) if os.path.isdir(parent) else ():
        if name.isdigit() and not os.path.exists(f"/proc/{name}"):
            _remove(f"{parent}/{name}")


def place(parent: str) -> str:
    """The group of our server, by our own number."""
    return f"{parent}/{os.getpid()}"


def _remove(group: str) -> None:
    try:
        os.rmdir(group)
    except OSError:  # something in it has not quite ended: who comes next sweeps
        return


def _wrote(path: str, words: str) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY)
    except OSError:
        return False
    try:
        os.write(descriptor, words.encode())
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
