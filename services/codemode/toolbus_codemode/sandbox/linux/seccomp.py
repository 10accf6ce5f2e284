"""Seccomp filter: an allow-list of system calls as BPF; any other call kills the process.

Only the standard library is used, because the process that loads the filter imports little else.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable
from dataclasses import dataclass

LOAD, MASK, EQUAL, ABOVE, RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
KILL, ALLOW, REFUSE = 0x80000000, 0x7FFF0000, 0x00050000
NUMBER_AT, ARCHITECTURE_AT, ARGUMENTS_AT = 0, 4, 16
X32 = 0x40000000
PR_SET_SECCOMP, MODE_FILTER = 22, 2
PROT_EXEC, CLONE_THREAD, WRITING_OR_CREATING = 4, 0x10000, 0o103
PR_SET_NAME = 15

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X86_64 = {
    "read": 0, "write": 1, "close": 3, "fstat": 5, "poll": 7, "lseek": 8, "mmap": 9,
    "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14,
    "rt_sigreturn": 15, "pread64": 17, "writev": 20, "access": 21, "sched_yield": 24,
    "mremap": 25, "madvise": 28, "getpid": 39, "clone": 56, "execve": 59, "exit": 60,
    "gettimeofday": 96, "sigaltstack": 131, "prctl": 157, "arch_prctl": 158, "gettid": 186,
    "futex": 202, "sched_getaffinity": 204, "set_tid_address": 218, "restart_syscall": 219,
    "clock_gettime": 228, "exit_group": 231, "tgkill": 234, "openat": 257, "newfstatat": 262,
    "ppoll": 271, "set_robust_list": 273, "prlimit64": 302, "getrandom": 318, "execveat": 322,
    "rseq": 334, "clone3": 435, "faccessat": 269,
}  # fmt: skip
AARCH64 = {
    "faccessat": 48, "openat": 56, "close": 57, "lseek": 62, "read": 63, "write": 64,
    "writev": 66, "pread64": 67, "ppoll": 73, "newfstatat": 79, "fstat": 80, "exit": 93,
    "exit_group": 94, "set_tid_address": 96, "futex": 98, "set_robust_list": 99,
    "clock_gettime": 113, "sched_getaffinity": 123, "sched_yield": 124, "restart_syscall": 128,
    "tgkill": 131, "sigaltstack": 132, "rt_sigaction": 134, "rt_sigprocmask": 135,
    "rt_sigreturn": 139, "prctl": 167, "gettimeofday": 169, "getpid": 172, "gettid": 178,
    "brk": 214, "munmap": 215, "mremap": 216, "clone": 220, "execve": 221, "mmap": 222,
    "mprotect": 226, "madvise": 233, "prlimit64": 261, "getrandom": 278, "execveat": 281,
    "rseq": 293, "clone3": 435,
}  # fmt: skip
NUMBERS = {"x86_64": X86_64, "aarch64": AARCH64}

CALCULATING = (
    "read", "write", "munmap", "mremap", "brk", "madvise", "futex", "clock_gettime",
    "gettimeofday", "exit", "exit_group", "rt_sigreturn", "rt_sigprocmask", "sigaltstack",
    "getrandom", "getpid", "gettid", "sched_yield", "restart_syscall",
)  # fmt: skip
STARTING = (
    "mmap", "mprotect", "close", "fstat", "newfstatat", "pread64", "lseek", "access",
    "faccessat", "rt_sigaction", "set_robust_list", "set_tid_address", "rseq", "arch_prctl",
    "sched_getaffinity", "poll", "ppoll", "writev", "execve", "execveat",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Check:
    """Condition on an argument of a system call: a masked 32-bit half equals a value."""

    argument: int
    mask: int
    value: int
    high: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """System call that is allowed if every check is true; else the result is `otherwise`."""

    call: str
    checks: tuple[Check, ...] = ()
    otherwise: int = KILL


def for_calculating(pid: int) -> tuple[Rule, ...]:
    """Return rules that allow a process to compute and to use its open descriptors."""
    no_new_code = (Check(2, PROT_EXEC, 0),)
    return (
        *(Rule(call) for call in CALCULATING),
        Rule("mmap", no_new_code),
        Rule("mprotect", no_new_code),
        Rule("tgkill", (Check(0, 0xFFFFFFFF, pid),)),
    )


def for_a_loaded_program(pid: int) -> tuple[Rule, ...]:
    """Return rules for a binary that is loaded after the filter and starts a thread.

    Landlock limits which files the binary may open and execute. These rules forbid writing and
    creating files.
    """
    return (
        *(Rule(call) for call in (*CALCULATING, *STARTING)),
        Rule("tgkill", (Check(0, 0xFFFFFFFF, pid),)),
        Rule("openat", (Check(2, WRITING_OR_CREATING, 0),), REFUSE | errno.EACCES),
        Rule("clone", (Check(0, CLONE_THREAD, CLONE_THREAD),)),
        Rule("clone3", (Check(0, 0, 1),), REFUSE | errno.ENOSYS),  # libc then uses clone
        Rule("prctl", (Check(0, 0xFFFFFFFF, PR_SET_NAME),), REFUSE | errno.EPERM),
        Rule(
            "prlimit64",
            (Check(2, 0xFFFFFFFF, 0), Check(2, 0xFFFFFFFF, 0, high=True)),
            REFUSE | errno.EPERM,
        ),
    )


def instruction(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """Encode one instruction of classic BPF."""
    return struct.pack("=HBBI", code, if_true, if_false, operand)


def check(wanted: Check, otherwise: int) -> list[bytes]:
    """Return instructions that end the filter with `otherwise` if the check is false."""
    at = ARGUMENTS_AT + 8 * wanted.argument + (4 if wanted.high else 0)
    return [
        instruction(LOAD, at),
        instruction(MASK, wanted.mask),
        instruction(EQUAL, wanted.value, 1, 0),
        instruction(RETURN, otherwise),
    ]


def block(number: int, rule: Rule) -> list[bytes]:
    """Return the instructions that decide on one system call."""
    body = [line for wanted in rule.checks for line in check(wanted, rule.otherwise)]
    body.append(instruction(RETURN, ALLOW))
    return [
        instruction(LOAD, NUMBER_AT),
        instruction(EQUAL, number, 0, len(body)),
        *body,
    ]


def compiled(rules: Iterable[Rule], machine: str | None = None) -> bytes:
    """Compile the filter for an architecture (default: this one) without the x32 calls."""
    machine = machine or platform.machine()
    numbers = NUMBERS[machine]
    lines = [
        instruction(LOAD, ARCHITECTURE_AT),
        instruction(EQUAL, ARCHITECTURES[machine], 1, 0),
        instruction(RETURN, KILL),
        instruction(LOAD, NUMBER_AT),
        instruction(ABOVE, X32, 0, 1),
        instruction(RETURN, KILL),
    ]
    for rule in rules:
        if rule.call in numbers:  # some calls exist on one architecture only
            lines += block(numbers[rule.call], rule)
    return b"".join((*lines, instruction(RETURN, KILL)))


class Filter(ctypes.Structure):
    """The kernel's `struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("lines", ctypes.c_void_p))


def load(libc: ctypes.CDLL, rules: Iterable[Rule]) -> None:
    """Install the filter in this process, which must have NO_NEW_PRIVS. Raises `OSError`."""
    code = compiled(rules)
    lines = ctypes.create_string_buffer(code, len(code))
    program = Filter(len(code) // 8, ctypes.addressof(lines))
    if libc.prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp: " + os.strerror(ctypes.get_errno()))
