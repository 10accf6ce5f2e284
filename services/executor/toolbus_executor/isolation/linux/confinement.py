"""Confinement of a server's process before its program starts."""

from __future__ import annotations

import os
import resource
import signal

from toolbus_common.process import landlock
from toolbus_common.process.rlimits import cap
from toolbus_executor.isolation.linux import syscall_filter, user_ids
from toolbus_executor.isolation.linux import syscalls as kernel
from toolbus_executor.isolation.program_paths import is_below
from toolbus_executor.isolation.visible_paths import DEVICES, IsolationError, VisiblePaths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import SimpleNamespace

MEBIBYTE = 1 << 20
_TRUNCATES_FROM = 3  # first Landlock version that controls truncation by path


def confine(plan: SimpleNamespace, held: dict[str, bool], user: int) -> dict[str, bool]:
    """Drop the rights that the plan does not grant, and return the isolation in force.

    `user` is the user id to switch to, or 0. `held` is the isolation that namespaces already
    enforce. Raises `IsolationError`.
    """
    counted = limit(plan.limits, own_user=held["own user"])
    if plan.limits["cpu"] and not plan.grouped.get("cpu.max"):
        raise IsolationError(
            "'limits.cpu' needs a control group; set TOOLBUS_CGROUP to one that is delegated to "
            "the executor, or remove 'limits.cpu'"
        )
    kernel.drop_capabilities(plan.right)
    kept = kernel.keep_privileges()
    kernel.leave_keyring()
    abi = landlock.version(kernel.libc)
    scoped = abi >= landlock.SCOPES_FROM and _scope()
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
    """Set the limits of each process. Return whether the number of processes is limited too.

    The kernel counts all processes of a user. The number of processes can therefore be limited only
    with a separate user.
    """
    cap(resource.RLIMIT_CORE, 0)
    cap(resource.RLIMIT_NOFILE, limits["files"])
    # The address space is not limited, because some runtimes reserve far more of it than they use.
    cap(resource.RLIMIT_DATA, limits["memory"] * MEBIBYTE)
    if limits["cpu_seconds"]:  # one second more to react to the first signal
        cap(resource.RLIMIT_CPU, limits["cpu_seconds"], 1)
    if own_user:
        cap(resource.RLIMIT_NPROC, limits["processes"])
    return own_user


def lock(visible_paths: VisiblePaths, scratch: list[str]) -> None:
    """Restrict this process to the visible paths, on machines without mounts.

    Landlock permits whole directory trees without exceptions. A hidden path must therefore not be
    below a visible path. Raises `IsolationError`.
    """
    shown = [os.path.realpath(each) for each in (*visible_paths.read, *visible_paths.write)]
    for secret in visible_paths.hidden:
        parents = [each for each in shown if is_below(os.path.realpath(secret), each)]
        if parents:
            raise IsolationError(
                f"{secret}, which no server may read, would be visible because it is below "
                f"{parents[0]} and this machine has no user namespaces to hide it; configure "
                "narrower paths in 'files' and 'cwd', or permit user namespaces"
            )
    kernel.keep_privileges()
    done = landlock.restrict(
        kernel.libc,
        (*visible_paths.system, "/proc", *visible_paths.read),
        (*DEVICES, *scratch, *visible_paths.write),
        network=False,
    )
    if not done:
        raise IsolationError(
            "this machine has neither user namespaces nor Landlock, so a server process could "
            "read the keys of Toolbus; permit user namespaces, use a kernel with Landlock (Linux "
            "5.13, with landlock among its security modules), or configure the server with url "
            "or container"
        )


def filter_calls() -> bool:
    """Reject system calls that Landlock does not control; return whether the filter was loaded."""
    abi = landlock.version(kernel.libc)
    return syscall_filter.load(by_path=abi < _TRUNCATES_FROM)


def _scope() -> bool:
    """Forbid signals and abstract sockets to processes outside this confinement."""
    return landlock.restrict(kernel.libc, files=False, network=False)


def restore_signals() -> None:
    """Restore the default handling of signals that Python ignores.

    Programs inherit the handling.
    """
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
