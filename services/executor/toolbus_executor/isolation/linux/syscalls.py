"""What is asked of Linux by number: processes in spaces of their own, mounts, death with a parent.

Only the standard library is used, and little of it: a server waits for what is imported here.
"""

import ctypes
import os
import struct

# Not CDLL: the child of a clone must not have to take back a lock that another thread held.
libc = ctypes.PyDLL(None, use_errno=True)

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP = 1, 4, 24
PR_SET_KEEPCAPS, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 8, 36, 38, 47
_RAISE = 2
DAC_OVERRIDE, DAC_READ_SEARCH = 1, 2
NEW_MOUNTS, NEW_IPC, NEW_USER, NEW_PIDS, NEW_NET = (
    0x00020000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
CLONE3 = 435  # the same on every architecture
SIGCHLD = 17
_CAPABILITIES_3 = 0x20080522
_KEYCTL, _JOIN_SESSION = {"x86_64": 250, "aarch64": 219}, 1
_NOT_ROOT = 1000  # whom root is in a user namespace of a server's
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


def drop_capabilities(kept: int = -1) -> None:
    """Let no program that is started from here on have any of root's rights, but perhaps one."""
    for number in range(_MOST_CAPABILITIES):
        if number != kept:
            libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
    libc.prctl(PR_SET_KEEPCAPS, int(kept >= 0), 0, 0, 0)


def forget_capabilities(kept: int = -1) -> None:
    """Give up the rights of root we have ourselves; what is kept, programs we start have too."""
    bits = 1 << kept if kept >= 0 else 0
    libc.capset(struct.pack("=Ii", _CAPABILITIES_3, 0), struct.pack("=6I", *[bits] * 3, 0, 0, 0))
    if kept >= 0:
        libc.prctl(PR_CAP_AMBIENT, _RAISE, kept, 0, 0)


def leave_keyring() -> None:
    """Have no keys at hand that the kernel keeps for whoever started us."""
    number = _KEYCTL.get(os.uname().machine, -1)
    libc.syscall(number, _JOIN_SESSION, None)


def be_opaque() -> None:
    """Let nobody of the same user look into this process."""
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def map_users(child: int) -> bool:
    """Give a child's own user namespace one user: ourselves, and never as root."""
    try:
        tell(f"/proc/{child}/setgroups", "deny")
        for kind, outside in (("uid_map", os.geteuid()), ("gid_map", os.getegid())):
            tell(f"/proc/{child}/{kind}", f"{outside or _NOT_ROOT} {outside} 1")
    except OSError:
        return False
    return True


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


def tell(path: str, words: str) -> None:
    """Write to a file of the kernel's. Raises `OSError`."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, words.encode())
    finally:
        os.close(descriptor)
