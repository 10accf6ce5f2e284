"""System-call filter for processes without namespaces: it protects all other processes.

Landlock controls files, signals and tracing. It does not control Unix sockets, named memory and
queues, kernel keys, or the limits of another process of the same user. This filter rejects them.
"""

import ctypes
import errno
import os
import struct

from toolbus_executor.isolation.linux.syscalls import libc

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_OTHER_TABLE = 0x40000000  # the x32 interface: the same system calls with other numbers
_SET_SECCOMP, _FILTER = 22, 2
_UNIX = 1
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# System calls that are always rejected, each with its number on x86_64, its number on aarch64, and
# the error.
_WHOLE = {
    "io_uring_setup": (425, 425, errno.ENOSYS),
    "add_key": (248, 217, errno.ENOSYS),
    "request_key": (249, 218, errno.ENOSYS),
    "keyctl": (250, 219, errno.ENOSYS),
    "shmget": (29, 194, errno.ENOSYS),
    "semget": (64, 190, errno.ENOSYS),
    "msgget": (68, 186, errno.ENOSYS),
    "mq_open": (240, 180, errno.ENOSYS),
    "open_by_handle_at": (304, 265, errno.EPERM),
}
# System calls that are rejected unless one argument is 0, which means the calling process. Each has
# its number on x86_64, its number on aarch64, and the position of the argument.
_OF_OTHERS = {
    "prlimit64": (302, 261, 0),
    "sched_setparam": (142, 118, 0),
    "sched_setscheduler": (144, 119, 0),
    "sched_setaffinity": (203, 122, 0),
    "sched_setattr": (314, 274, 0),
    "setpriority": (141, 140, 1),
    "ioprio_set": (251, 30, 1),
}
_SOCKET = (41, 198)
_TRUNCATE = (76, 45)


def load(*, by_path: bool) -> bool:
    """Load the filter, and return whether it is in force. It cannot be removed.

    `by_path` also rejects truncation by path.
    """
    machine = os.uname().machine
    if machine not in _ARCHITECTURES:
        return False
    code = _compiled(machine, by_path=by_path)
    code_buffer = ctypes.create_string_buffer(code, len(code))
    form = ctypes.create_string_buffer(
        struct.pack("=H6xQ", len(code) // 8, ctypes.addressof(code_buffer))
    )
    return int(libc.prctl(_SET_SECCOMP, _FILTER, form, 0, 0)) == 0


def _compiled(machine: str, *, by_path: bool) -> bytes:
    at = 0 if machine == "x86_64" else 1
    rejected = _REFUSE | errno.ENOSYS
    lines = [
        _line(_LOAD, _ARCHITECTURE_AT),
        _line(_EQUAL, _ARCHITECTURES[machine], 1, 0),
        _line(_RETURN, rejected),
        _line(_LOAD, _NUMBER_AT),
        _line(_AT_LEAST, _OTHER_TABLE, 0, 1),
        _line(_RETURN, rejected),
    ]
    for *numbers, error in _WHOLE.values():
        lines += [_line(_EQUAL, numbers[at], 0, 1), _line(_RETURN, _REFUSE | error)]
    if by_path:
        lines += [_line(_EQUAL, _TRUNCATE[at], 0, 1), _line(_RETURN, _REFUSE | errno.EACCES)]
    for *numbers, argument in _OF_OTHERS.values():
        lines += [
            _line(_EQUAL, numbers[at], 0, 4),
            _line(_LOAD, _ARGUMENTS_AT + 8 * argument),
            _line(_EQUAL, 0, 1, 0),
            _line(_RETURN, _REFUSE | errno.EPERM),
            _line(_RETURN, _ALLOW),
        ]
    lines += [
        _line(_EQUAL, _SOCKET[at], 0, 3),
        _line(_LOAD, _ARGUMENTS_AT),
        _line(_EQUAL, _UNIX, 0, 1),
        _line(_RETURN, _REFUSE | errno.EACCES),
        _line(_RETURN, _ALLOW),
    ]
    return b"".join(lines)


def _line(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, operand)
