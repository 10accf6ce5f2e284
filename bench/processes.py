"""CPU and memory of processes and their children, from /proc."""

import os
from collections.abc import Iterable
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def family(root: int) -> list[int]:
    """Return a process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process, all threads; 0 if it has ended."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICK if fields else 0.0


def resident_mb(pids: Iterable[int]) -> float:
    """Return the sum of resident memory; shared pages count in each process."""
    total = 0
    for pid in pids:
        for line in _proc_file(pid, "status").splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1])
    return total / 1024


def pss_mb(pid: int) -> float:
    """Return the proportional set size of a process; shared pages count in parts. 0 if ended."""
    for line in _proc_file(pid, "smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def name_of(pid: int) -> str:
    """Return the name of a process: its services, or its program."""
    words = _proc_file(pid, "cmdline").split("\0")
    if "run" in words:
        return "+".join(word for word in words[words.index("run") + 1 :] if word)
    if "up" in words:
        return "launcher"
    program = next((word for word in words if "server" in word or "toolbus_" in word), words[0])
    return Path(program.partition(" ")[0]).name  # Valkey adds its address


def _stat(pid: int) -> list[str]:
    """Return the fields after a process's name; empty if it has ended."""
    return _proc_file(pid, "stat").rpartition(")")[2].split()


def _proc_file(pid: int, what: str) -> str:
    """Return a file of a process in /proc; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/{what}").read_text(errors="replace")
    except OSError:
        return ""
