"""Processes that bear a mark among their words, seen from outside of whatever they are in."""

from contextlib import suppress
from pathlib import Path


def marked(mark: str) -> list[int]:
    """The processes that bear it."""
    every = (int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit())
    return [pid for pid in every if any(mark.encode() in word for word in words_of(pid))]


def strays(mark: str) -> list[int]:
    """Those of them that call themselves strays."""
    return [pid for pid in marked(mark) if words_of(pid)[-1] == b"stray"]


def words_of(pid: int) -> list[bytes]:
    """What a process was started with; nothing of a zombie, or of one that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return [b""]


def children() -> set[int]:
    """Children of this process, zombies too; its threads may end meanwhile."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            found.update(map(int, (task / "children").read_text().split()))
    return found
