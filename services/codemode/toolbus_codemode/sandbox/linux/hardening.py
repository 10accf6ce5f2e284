"""Hardening: drop privileges of a process before it runs an untrusted program.

The order matters. A change of user clears the parent-death signal, so it is set twice. Landlock
opens descriptors, so it precedes their limit. Seccomp forbids all the other steps, so it is last.
Only the standard library is used, and nothing is imported during hardening, because the
interpreter's files may be unreadable after the change of user.
"""

import ctypes
import os
import resource
import signal
import struct
from collections.abc import Callable
from dataclasses import dataclass

from toolbus_codemode.sandbox.linux import seccomp
from toolbus_common.process import landlock
from toolbus_common.process.rlimits import cap

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
NEW_USER, NEW_NET, NEW_IPC, NEW_UTS = 0x10000000, 0x40000000, 0x08000000, 0x04000000
UNPRIVILEGED_UID = 65534
CAPABILITIES_3 = 0x20080522  # version of the form of `capset`
STACK = 8 << 20
CLOSE_RANGE = 436  # the same on every architecture

libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Confinement:
    """Limits of a process: address space in bytes, processor time in seconds, and others."""

    memory: int
    cpu: int
    parent: int
    descriptors: int = 0
    readable: tuple[str, ...] = ()
    rules: Callable[[int], tuple[seccomp.Rule, ...]] = seccomp.for_calculating
    without_seccomp: bool = False


def unshare() -> bool:
    """Enter new network, IPC and UTS namespaces; return whether the host permits it.

    Without the right to do so, this process enters a user namespace too. There it has all
    capabilities, and drops them: its workers have none, and a process may open the files of
    another process in /proc only if it has all capabilities of the other process.
    """
    spaces = NEW_NET | NEW_IPC | NEW_UTS
    if libc.unshare(spaces) == 0:
        return True
    if libc.unshare(spaces | NEW_USER) != 0:
        return False
    libc.capset(struct.pack("=Ii", CAPABILITIES_3, 0), bytes(24))
    return True


def die_with(parent: int) -> None:
    """Request SIGKILL for this process when its parent ends; exit if the parent has ended.

    0 requests nothing. The kernel sends the signal when the parent's thread ends, so a parent whose
    threads end must pass 0.
    """
    if not parent:
        return
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def limit(held: Confinement) -> None:
    """Set resource limits.

    The hard limit of processor time is one second above the soft limit, so that exceeding the soft
    limit can be reported.
    """
    cap(resource.RLIMIT_AS, held.memory)
    cap(resource.RLIMIT_FSIZE, 0)
    cap(resource.RLIMIT_CORE, 0)
    cap(resource.RLIMIT_STACK, STACK)
    cap(resource.RLIMIT_CPU, held.cpu, 1)


def drop_user() -> bool:
    """Switch from root to the unprivileged system user; return False if that is impossible."""
    if os.geteuid() != 0:
        return True
    try:
        os.setgroups([])
        os.setresgid(UNPRIVILEGED_UID, UNPRIVILEGED_UID, UNPRIVILEGED_UID)
        os.setresuid(UNPRIVILEGED_UID, UNPRIVILEGED_UID, UNPRIVILEGED_UID)
    except OSError:  # a user namespace with one user in it
        return False
    return True


def harden(held: Confinement) -> dict[str, bool]:
    """Apply all protections; return whether each protection is in force, by name."""
    die_with(held.parent)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    limit(held)
    dropped = drop_user()
    die_with(held.parent)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    no_new_privileges = libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    locked = landlock.restrict(libc, held.readable)
    resource.setrlimit(resource.RLIMIT_NOFILE, (held.descriptors, held.descriptors))
    return {
        "user": dropped,
        "no_new_privs": no_new_privileges,
        "landlock": locked,
        "seccomp": filtered(held),
    }


def filtered(held: Confinement) -> bool:
    """Load the seccomp filter; return whether it is in force.

    Raises `OSError` or `KeyError` if the host does not support the filter, unless the operator set
    `without_seccomp`.
    """
    try:
        seccomp.load(libc, held.rules(os.getpid()))
    except (OSError, KeyError):  # no seccomp in the kernel, or no table for the architecture
        if not held.without_seccomp:
            raise
        return False
    return True


def close_all_but(kept: int) -> int:
    """Close every descriptor except `kept`, which becomes number 0. Return 0."""
    if kept:
        os.dup2(kept, 0)
    if libc.syscall(CLOSE_RANGE, 1, ctypes.c_uint(0xFFFFFFFF), 0):
        os.closerange(1, os.sysconf("SC_OPEN_MAX"))
    return 0
