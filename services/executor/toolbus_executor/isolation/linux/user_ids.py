"""Separate user ids for server processes. No other process of the machine uses them."""

import os
import signal

from toolbus_executor.isolation.linux import syscalls

# The ids above this one are beyond the ranges of distributions, containers and directory services.
_FIRST = 0x70000000
_MAX_PIDS = 1 << 22
_SMALL, _SPARED = 65536, 1000  # the highest 1000 ids of a container's range are in use


def own() -> int:
    """Return the user id for this supervisor's server; 0 if the process cannot switch users."""
    if os.geteuid() != 0:
        return 0
    try:
        rows = [_row("uid_map"), _row("gid_map")]
    except OSError:
        return 0
    end = min(first + count for first, count in rows)
    if end >= _FIRST + _MAX_PIDS:
        return _FIRST + os.getpid()
    return end - _SPARED - os.getpid() % (_SMALL // 2) if end >= _SMALL else 0


def become(user: int) -> None:
    """Switch to the user, without supplementary groups. Raises `OSError`."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def right_for(user: int, read: list[str], write: list[str]) -> int:
    """Return the capability that the user needs for access to these paths; -1 if it needs none.

    Landlock restricts the files that the process can reach. Without a capability, the process has
    the access rights of "others" to these files.
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
    """Return a namespace that maps root's files to the user, as a descriptor; -1 if impossible.

    Through a tree that is mounted with this mapping, the server has the executor's access rights.
    No other process uses that tree.
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
            syscalls.write_kernel_file(f"/proc/{child}/{kind}", f"0 {user} 1\n1 1 {user - 1}\n")
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _row(kind: str) -> tuple[int, int]:
    """Return the first id and the number of ids in the highest available range of ids."""
    with open(f"/proc/self/{kind}") as file:
        rows = [line.split() for line in file]
    first, _outside, count = max(rows, key=lambda row: int(row[0]))
    return int(first), int(count)
