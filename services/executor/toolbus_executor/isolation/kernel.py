"""What is asked of Linux by number: processes in spaces of their own, mounts, death with a parent.

Only the standard library is used, and little of it: a server waits for what is imported here.
"""

import ctypes
import os
import struct
from collections.abc import Iterable

# Not CDLL: the child of a clone must not have to take back a lock that another thread held.
libc = ctypes.PyDLL(None, use_errno=True)

PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 24, 36, 38
NEW_MOUNTS, NEW_IPC, NEW_USER, NEW_PIDS, NEW_NET = (
    0x00020000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
CLONE3 = 435  # the same on every architecture
SIGCHLD = 17
_BIND, _PRIVATE, _RECURSIVE, _READ_ONLY = 0x1000, 1 << 18, 0x4000, 1
_NO_SUID, _NO_DEVICES, _NO_EXEC = 2, 4, 8
_QUIET = _NO_SUID | _NO_DEVICES | _NO_EXEC
# Over files, and to be another user of one's own namespace; none over the machine.
_KEPT_CAPABILITIES = range(8)
_MOST_CAPABILITIES = 64
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1


def clone(spaces: int) -> int:
    """Fork into these namespaces; as `fork`, but -1 where that is refused."""
    arguments = struct.pack("=8Q", spaces, 0, 0, 0, SIGCHLD, 0, 0, 0)
    return int(libc.syscall(CLONE3, arguments, len(arguments)))


def die_with_parent(signal: int) -> None:
    """Be sent a signal when the parent ends."""
    libc.prctl(PR_SET_PDEATHSIG, int(signal), 0, 0, 0)


def inherit_orphans() -> None:
    """Become the parent of whatever our descendants leave behind."""
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def keep_privileges() -> bool:
    """Gain none by any program that is started from here on."""
    return int(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) == 0


def drop_capabilities() -> None:
    """Give up what root may do to a machine; who is not root has none of it."""
    for number in range(_MOST_CAPABILITIES):
        if number not in _KEPT_CAPABILITIES:
            libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)


def map_users(child: int) -> bool:
    """Give a child's own user namespace the users we are: all of them for root, else ourselves."""
    try:
        if os.geteuid() == 0:
            for kind in ("uid_map", "gid_map"):
                _tell(f"/proc/{child}/{kind}", _as_here(kind))
        else:
            _tell(f"/proc/{child}/setgroups", "deny")
            _tell(f"/proc/{child}/uid_map", f"{os.geteuid()} {os.geteuid()} 1")
            _tell(f"/proc/{child}/gid_map", f"{os.getegid()} {os.getegid()} 1")
    except OSError:
        return False
    return True


def own_mounts() -> bool:
    """Let no mount of ours be seen outside; and show our own processes at /proc, if permitted."""
    libc.mount(b"none", b"/", None, _PRIVATE | _RECURSIVE, None)
    return int(libc.mount(b"proc", b"/proc", b"proc", _QUIET, None)) == 0


def hide(paths: Iterable[str]) -> bool:
    """Put nothing in the place of directories and files; whether each of them is out of sight."""
    return min(map(_hide, paths), default=True)


def _hide(path: str) -> bool:
    place = os.fsencode(path)
    if os.path.isdir(path):  # noqa: PTH112 - pathlib is not worth its import here
        flags = _QUIET | _READ_ONLY
        return int(libc.mount(b"none", place, b"tmpfs", flags, b"size=4k,mode=0")) == 0
    gone = not os.path.exists(path)  # noqa: PTH110
    return gone or int(libc.mount(b"/dev/null", place, None, _BIND, None)) == 0


def raise_loopback() -> bool:
    """Bring up the loopback of our own network namespace."""
    import fcntl  # noqa: PLC0415 - few servers want it
    import socket  # noqa: PLC0415

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            name = struct.pack("16sH22x", b"lo", 0)
            flags = struct.unpack_from("16sH", fcntl.ioctl(any_socket, _GET_FLAGS, name))[1]
            fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sH22x", b"lo", flags | _UP))
        except OSError:
            return False
    return True


def _tell(path: str, words: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, words.encode())
    finally:
        os.close(descriptor)


def _as_here(kind: str) -> str:
    """Every user or group there is here, under its own number."""
    with open(f"/proc/self/{kind}") as told:  # noqa: PTH123
        rows = [line.split() for line in told]
    return "".join(f"{inside} {inside} {count}\n" for inside, _outside, count in rows)
