"""What a server's process takes from itself before its program begins; and what could be taken."""

from __future__ import annotations

import os
import resource
import signal

from toolbus_common.process import landlock
from toolbus_common.process.rlimits import cap
from toolbus_executor.isolation.linux import syscall_filter, user_ids
from toolbus_executor.isolation.linux import syscalls as kernel
from toolbus_executor.isolation.program_paths import is_below
from toolbus_executor.isolation.visible_paths import DEVICES, CannotBeHeldError, Places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import SimpleNamespace

MEBIBYTE = 1 << 20
_TRUNCATES_FROM = 3  # Landlock's version that governs truncation by a path


def confine(plan: SimpleNamespace, held: dict[str, bool], user: int) -> dict[str, bool]:
    """Take away what the plan says, and tell what is in force. Raises `CannotBeHeldError`.

    `user` is whom to become, if anybody; `held` what namespaces hold it to already.
    """
    counted = limit(plan.limits, own_user=held["own user"])
    if plan.limits["cpu"] and not plan.grouped.get("cpu.max"):
        raise CannotBeHeldError(
            "limits.cpu is declared, which needs a control group; name one that is delegated to "
            "the executor in TOOLBUS_CGROUP, or leave it out"
        )
    kernel.drop_capabilities(plan.right)
    kept = kernel.keep_privileges()
    kernel.leave_keyring()
    spoken = landlock.version(kernel.libc)
    scoped = spoken >= landlock.SCOPES_FROM and _scope()
    if user:
        user_ids.become(user)
    kernel.forget_capabilities(plan.right)
    return {
        "no new privileges": kept,
        "signals": scoped or held["own processes"],
        "abstract sockets": scoped or plan.network != "any",
        "number of processes": counted or plan.grouped.get("pids.max", False),
        "memory of all together": plan.grouped.get("memory.max", False),
    }


def limit(limits: dict[str, int], *, own_user: bool) -> bool:
    """Set the limits of each process; whether their number is limited too.

    Of processes the kernel counts all a user has, so only where the server is a user of its own.
    """
    cap(resource.RLIMIT_CORE, 0)
    cap(resource.RLIMIT_NOFILE, limits["files"])
    # Not the address space: some runtimes reserve far more of that than they ever use.
    cap(resource.RLIMIT_DATA, limits["memory"] * MEBIBYTE)
    if limits["cpu_seconds"]:  # and a second more, for who heeds the first word
        cap(resource.RLIMIT_CPU, limits["cpu_seconds"], 1)
    if own_user:
        cap(resource.RLIMIT_NPROC, limits["processes"])
    return own_user


def lock(places: Places, scratch: list[str]) -> None:
    """Keep to these files where nothing can be mounted. Raises `CannotBeHeldError`.

    Landlock permits trees, and takes nothing out of them: what is to stay hidden must not be
    below what is shown.
    """
    shown = [os.path.realpath(each) for each in (*places.read, *places.write)]
    for secret in places.hidden:
        above = [each for each in shown if is_below(os.path.realpath(secret), each)]
        if above:
            raise CannotBeHeldError(
                f"it would see {secret}, which no server may see: it lies below {above[0]}, and "
                "this machine permits no namespaces, by which it could be left out; name narrower "
                "paths in files and cwd, or run it where there are user namespaces"
            )
    kernel.keep_privileges()
    done = landlock.restrict(
        kernel.libc,
        (*places.system, "/proc", *places.read),
        (*DEVICES, *scratch, *places.write),
        network=False,
    )
    if not done:
        raise CannotBeHeldError(
            "this machine permits neither namespaces nor Landlock, and without either a server "
            "would read Toolbus' own keys; permit user namespaces, use a kernel with Landlock "
            "(Linux 5.13, with landlock among its security modules), or declare it by url or as "
            "a container"
        )


def filter_calls() -> bool:
    """Refuse what Landlock does not govern; whether that was possible."""
    spoken = landlock.version(kernel.libc)
    return syscall_filter.refuse_what_reaches_others(by_path=spoken < _TRUNCATES_FROM)


def _scope() -> bool:
    """Send no signal, and open no abstract socket, to who is not confined likewise."""
    return landlock.restrict(kernel.libc, files=False, network=False)


def restore_signals() -> None:
    """Python ignores some, and a program would inherit that."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
