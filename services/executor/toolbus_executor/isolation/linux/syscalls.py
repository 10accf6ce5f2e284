"""Linux system calls by number: namespaces, capabilities, and the parent-death signal.

The module imports only a few modules of the standard library, because imports delay a server's
start.
"""

import ctypes
import os
import select
import struct

# PyDLL instead of CDLL, which releases the interpreter lock during `clone`: if another thread then
# acquired the lock, the child would wait for it forever.
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
_NOT_ROOT = 1000  # the user id that root gets in a server's user namespace
_MAX_CAPABILITIES = 64
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1


def clone(spaces: int) -> int:
    """Fork into the new namespaces `spaces`.

    Return 0 in the child, the child's pid in the parent, and -1 if the kernel rejects it.
    """
    arguments = struct.pack("=8Q", spaces, 0, 0, 0, SIGCHLD, 0, 0, 0)
    return int(libc.syscall(CLONE3, arguments, len(arguments)))


def die_with_parent(signal: int) -> None:
    """Make the kernel send this signal to the process when its parent ends."""
    libc.prctl(PR_SET_PDEATHSIG, int(signal), 0, 0, 0)


def inherit_orphans() -> None:
    """Make this process the subreaper of all its descendants."""
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def keep_privileges() -> bool:
    """Prevent this process and its programs from gaining privileges. Return whether it worked."""
    return int(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) == 0


def drop_capabilities(kept: int = -1) -> None:
    """Remove all capabilities except `kept` from programs started from now on."""
    for number in range(_MAX_CAPABILITIES):
        if number != kept:
            libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
    libc.prctl(PR_SET_KEEPCAPS, int(kept >= 0), 0, 0, 0)


def forget_capabilities(kept: int = -1) -> None:
    """Drop this process's capabilities except `kept`. Programs that it starts inherit `kept`."""
    bits = 1 << kept if kept >= 0 else 0
    libc.capset(struct.pack("=Ii", _CAPABILITIES_3, 0), struct.pack("=6I", *[bits] * 3, 0, 0, 0))
    if kept >= 0:
        libc.prctl(PR_CAP_AMBIENT, _RAISE, kept, 0, 0)


def leave_keyring() -> None:
    """Join an empty session keyring, so that the keys of the parent are out of reach."""
    number = _KEYCTL.get(os.uname().machine, -1)
    libc.syscall(number, _JOIN_SESSION, None)


def be_opaque() -> None:
    """Prevent other processes of the same user from reading or tracing this process."""
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def map_users(child: int) -> bool:
    """Map a child's user namespace to this user, but never as root. Return whether it worked."""
    try:
        write_kernel_file(f"/proc/{child}/setgroups", "deny")
        for kind, outside in (("uid_map", os.geteuid()), ("gid_map", os.getegid())):
            write_kernel_file(f"/proc/{child}/{kind}", f"{outside or _NOT_ROOT} {outside} 1")
    except OSError:
        return False
    return True


def raise_loopback() -> bool:
    """Bring up the loopback interface of this network namespace. Return whether it worked."""
    import fcntl  # noqa: PLC0415 - few servers need it
    import socket  # noqa: PLC0415

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            name = struct.pack("16sH22x", b"lo", 0)
            flags = struct.unpack_from("16sH", fcntl.ioctl(any_socket, _GET_FLAGS, name))[1]
            fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sH22x", b"lo", flags | _UP))
        except OSError:
            return False
    return True


def write_kernel_file(path: str, text: str) -> None:
    """Write to a kernel file. Raises `OSError`."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def is_readable(descriptor: int) -> bool:
    """Return whether a read returns at once. Descriptors above 1023 are supported."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
