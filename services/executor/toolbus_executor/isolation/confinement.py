"""What a server's process takes from itself before its program begins; and what could be taken."""

import os
import resource
import signal
from types import SimpleNamespace

from toolbus_common import landlock
from toolbus_common.rlimits import cap
from toolbus_executor.isolation import kernel

MEBIBYTE = 1 << 20
# What every program needs that is more than one file: itself, its libraries, names, the kernel.
SYSTEM = (
    "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/usr", "/etc", "/opt", "/nix", "/proc", "/sys",
    "/dev", "/run/systemd/resolve",
)  # fmt: skip
DEVICES = tuple(
    f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts")
)


class CannotBeHeldError(Exception):
    """What was declared cannot be enforced on this machine; the sentence says what."""


def confine(plan: SimpleNamespace, *, own_user: bool) -> dict[str, bool]:
    """Take away what the plan says, and tell what is in force. Raises `CannotBeHeldError`."""
    counted = limit(plan.limits, own_user=own_user)
    if plan.limits["cpu"] and not plan.grouped.get("cpu.max"):
        raise CannotBeHeldError(
            "limits.cpu is declared, which needs a control group; name one that is delegated to "
            "the executor in TOOLBUS_CGROUP, or leave it out"
        )
    kernel.drop_capabilities()
    kept = kernel.keep_privileges()
    files = plan.files
    landlocked = lock(files)
    if files is not None and not landlocked:
        raise CannotBeHeldError(
            "files are declared, and this machine's kernel has no Landlock to hold a server to "
            "them; leave files out, or run it where there is Landlock"
        )
    scoped = landlocked and landlock.version(kernel.libc) >= landlock.SCOPES_FROM
    return {
        "no new privileges": kept,
        "signals": scoped,
        "number of processes": counted or plan.grouped.get("pids.max", False),
        "memory of all together": plan.grouped.get("memory.max", False),
    }


def limit(limits: dict[str, int], *, own_user: bool) -> bool:
    """Set the limits of each process; whether their number is limited too.

    Of processes the kernel counts all a user has, so only where the server is a user of its own;
    and it does not count root's.
    """
    cap(resource.RLIMIT_CORE, 0)
    cap(resource.RLIMIT_NOFILE, limits["files"])
    # Not the address space: some runtimes reserve far more of that than they ever use.
    cap(resource.RLIMIT_DATA, limits["memory"] * MEBIBYTE)
    if limits["cpu_seconds"]:  # and a second more, for who heeds the first word
        cap(resource.RLIMIT_CPU, limits["cpu_seconds"], 1)
    counted = own_user and os.geteuid() != 0
    if counted:
        cap(resource.RLIMIT_NPROC, limits["processes"])
    return counted


def lock(files: dict[str, tuple[str, ...]] | None) -> bool:
    """Keep to these files, if any are named; and send no signal to who is not confined so."""
    if files is None:
        return landlock.restrict(kernel.libc, files=False, network=False, scopes=landlock.SIGNALS)
    for path in (*files["read"], *files["write"]):
        if not os.path.exists(path):  # noqa: PTH110 - pathlib is not worth its import here
            raise CannotBeHeldError(f"files names {path}, which does not exist; make it first")
    return landlock.restrict(
        kernel.libc,
        (*SYSTEM, *files["base"], *files["read"]),
        (*DEVICES, *files["write"]),
        network=False,
        scopes=landlock.SIGNALS,
    )


def restore_signals() -> None:
    """Python ignores some, and a program would inherit that."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
