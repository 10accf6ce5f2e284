"""Hardening: what a process takes from itself before it touches an untrusted program.

The order matters: the parent-death signal is lost with a change of user and so asked for twice;
Landlock opens descriptors and so comes before their number is cut; seccomp comes last, for it
would forbid all the rest. Only the standard library is used, and nothing is imported on the way:
once the user is dropped the interpreter's own files may be unreadable.
"""

import ctypes
import os
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass

from toolbus_codemode.sandbox.linux import seccomp
from toolbus_common.process import landlock
from toolbus_common.process.rlimits import cap

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
NEW_USER, NEW_NET, NEW_IPC, NEW_UTS = 0x10000000, 0x40000000, 0x08000000, 0x04000000
NOBODY = 65534
STACK = 8 << 20
CLOSE_RANGE = 436  # the same on every architecture

libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a process is held to: bytes of address space, seconds of processor, and more."""

    memory: int
    cpu: int
    parent: int
    descriptors: int = 0
    readable: tuple[str, ...] = ()
    rules: Callable[[int], tuple[seccomp.Rule, ...]] = seccomp.for_calculating
    without_seccomp: bool = False


def unshare() -> bool:
    """Leave the host's network, IPC and names behind, where that is permitted."""
    spaces = NEW_NET | NEW_IPC | NEW_UTS
    return any(libc.unshare(asked) == 0 for asked in (spaces, spaces | NEW_USER))


def die_with(parent: int) -> None:
    """Be killed when the parent ends; it may have ended before we could ask.

    The kernel means the parent's thread: 0 where threads of the parent come and go.
    """
    if not parent:
        return
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def limit(held: Confinement) -> None:
    """The limits the kernel counts. Of processor time there is a second more, to be told why."""
    cap(resource.RLIMIT_AS, held.memory)
    cap(resource.RLIMIT_FSIZE, 0)
    cap(resource.RLIMIT_CORE, 0)
    cap(resource.RLIMIT_STACK, STACK)
    cap(resource.RLIMIT_CPU, held.cpu, 1)


def drop_user() -> bool:
    """Become nobody, if we are root; whoever is not root already is somebody harmless."""
    if os.geteuid() != 0:
        return True
    try:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    except OSError:  # a user namespace with one user in it
        return False
    return True


def harden(held: Confinement) -> dict[str, bool]:
    """Take everything away, and tell which protections are in force."""
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
    """The filter, last. Without it nothing runs, unless the operator said so."""
    try:
        seccomp.load(libc, held.rules(os.getpid()))
    except (OSError, KeyError):  # a kernel without it, an architecture we have no table for
        if not held.without_seccomp:
            raise
        return False
    return True


def close_all_but(kept: int) -> int:
    """Close every descriptor but one, which becomes number 0."""
    if kept:
        os.dup2(kept, 0)
    if libc.syscall(CLOSE_RANGE, 1, ctypes.c_uint(0xFFFFFFFF), 0):
        os.closerange(1, os.sysconf("SC_OPEN_MAX"))
    return 0
