"""Give a server's process a user of its own: a number no other process of the machine has."""

import os
import signal

from toolbus_executor.isolation.linux import syscalls

# Beyond what distributions, containers and directories of people give away.
_FIRST = 0x70000000
_MOST_PIDS = 1 << 22
_SMALL, _SPARED = 65536, 1000  # of a container's own range the last ones are in use


def own() -> int:
    """A number for the server that this process supervises; 0 where we may not become another."""
    if os.geteuid() != 0:
        return 0
    try:
        rows = [_row("uid_map"), _row("gid_map")]
    except OSError:
        return 0
    end = min(first + count for first, count in rows)
    if end >= _FIRST + _MOST_PIDS:
        return _FIRST + os.getpid()
    return end - _SPARED - os.getpid() % (_SMALL // 2) if end >= _SMALL else 0


def become(user: int) -> None:
    """Be that user, and of no group but theirs. Raises `OSError`."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def right_for(user: int, read: list[str], write: list[str]) -> int:
    """Which of root's rights that user needs so as to use these paths; -1 for none.

    Landlock says which files it then reaches, and without more rights it owns none of them.
    """
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(user)
    os.seteuid(user)
    try:
        if not all(os.access(path, os.W_OK, effective_ids=True) for path in write):
            return syscalls.DAC_OVERRIDE
        listed = (os.R_OK | (os.X_OK if os.path.isdir(path) else 0) for path in read)
        every = zip(read, listed, strict=True)
        may = all(os.access(path, mode, effective_ids=True) for path, mode in every)
        return -1 if may else syscalls.DAC_READ_SEARCH
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def mapping(user: int) -> int:
    """A user namespace, as a descriptor, in which root's files are that user's; -1 without one.

    A tree mounted through it is used by the server with our rights on it, and by nobody else.
    """
    if not user:
        return -1
    child = syscalls.clone(syscalls.NEW_USER)
    if child == 0:
        signal.pause()
        os._exit(0)
    if child < 0:
        return -1
    try:
        for kind in ("uid_map", "gid_map"):
            syscalls.tell(f"/proc/{child}/{kind}", f"0 {user} 1\n1 1 {user - 1}\n")
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _row(kind: str) -> tuple[int, int]:
    """The range of users, or groups, with the highest numbers there are here."""
    with open(f"/proc/self/{kind}") as told:
        rows = [line.split() for line in told]
    first, _outside, count = max(rows, key=lambda row: int(row[0]))
    return int(first), int(count)
