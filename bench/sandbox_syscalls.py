"""System calls from native code in a hardened child process; each must kill the child.

Usage, as its own process: it forks one child per call, hardens it as the sandbox does, makes the
call through libc with harmless arguments, and prints how the children ended as JSON.
"""

import ctypes
import json
import os
import platform
import signal
import sys
from collections.abc import Callable

from toolbus_codemode.sandbox.linux import seccomp
from toolbus_codemode.sandbox.linux.hardening import Confinement, close_all_but, harden, libc

MEMORY, CPU, LAST, X32 = 400 << 20, 2, 470, 0x40000000
ARGUMENT_BAD = 0xFFFF
SURVIVED = 7
# uretprobe and uprobe: x86 kernels let them pass every filter, and they fail outside a trampoline
# that the kernel itself has created.
PASSED_BY_KERNEL = {335, 336} if platform.machine() == "x86_64" else set()
FEW = ("call 41", "call 57", "call 59", "call 101", "call 257", "x32 call 1", "mmap executable")
PROT_EXEC_ALL, MAP_PRIVATE_ANONYMOUS = 7, 0x22


def ended(act: Callable[[], object], *, become: int) -> int:
    """Return how a hardened child ends that executes `act`."""
    me = os.getpid()
    child = os.fork()
    if not child:
        if become:
            os.setresuid(become, become, become)
        close_all_but(0)
        harden(Confinement(MEMORY, CPU, me))
        act()
        os._exit(SURVIVED)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def call(number: int) -> Callable[[], object]:
    """Make one call by its number."""
    return lambda: libc.syscall(ctypes.c_long(number), ARGUMENT_BAD, 0, 0, 0, 0, 0)


def acts() -> dict[str, Callable[[], object]]:
    """Return every call outside the filter's list, and misuses of the allowed ones."""
    numbers = seccomp.NUMBERS[platform.machine()]
    listed = {numbers[r.call] for r in seccomp.for_calculating(0) if r.call in numbers}
    calls = {f"call {n}": call(n) for n in range(LAST) if n not in listed | PASSED_BY_KERNEL}
    calls |= {f"x32 call {n}": call(X32 | n) for n in (0, 1, 2, 41, 57, 59)}
    return calls | {
        "mmap executable": lambda: libc.syscall(
            numbers["mmap"], None, 4096, PROT_EXEC_ALL, MAP_PRIVATE_ANONYMOUS, -1, 0
        ),
        "mprotect executable": lambda: libc.syscall(numbers["mprotect"], None, 4096, 7),
        "signal to the parent": lambda: libc.syscall(numbers["tgkill"], 1, 1, 0),
    }


def main() -> None:
    """Try all calls, as the current user and as an unprivileged one."""
    found: dict[str, dict[str, int]] = {}
    chosen = {what: act for what, act in acts().items() if "--few" not in sys.argv or what in FEW}
    for name, become in (("root" if os.geteuid() == 0 else "self", 0), ("uid 65534", 65534)):
        if become and os.geteuid() != 0:
            continue
        found[name] = {what: ended(act, become=become) for what, act in chosen.items()}
    survivors = {
        f"{who}: {what}": status
        for who, ends in found.items()
        for what, status in ends.items()
        if status != -signal.SIGSYS
    }
    tried = sum(len(ends) for ends in found.values())
    json.dump({"tried": tried, "survivors": survivors}, sys.stdout)


if __name__ == "__main__":
    main()
