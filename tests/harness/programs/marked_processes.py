"""Processes with a mark on their command line. They are found in /proc."""

from contextlib import suppress
from pathlib import Path


def marked(mark: str) -> list[int]:
    """Return the ids of the processes with the mark."""
    every = (int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit())
    return [pid for pid in every if any(mark.encode() in word for word in command_of(pid))]


def strays(mark: str) -> list[int]:
    """Return the ids of the marked processes whose last argument is `stray`."""
    return [pid for pid in marked(mark) if command_of(pid)[-1] == b"stray"]


def command_of(pid: int) -> list[bytes]:
    """Return the command line of a process; empty for a zombie or an ended process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return [b""]


def children() -> set[int]:
    """Return the children of this process, including zombies. Threads can end in the meantime."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            found.update(map(int, (task / "children").read_text().split()))
    return found
