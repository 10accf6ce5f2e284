"""Landlock: no file, no TCP, no signal to others, as far as this kernel's version can say it."""

import ctypes
import os
import struct

CREATE, ADD_RULE, RESTRICT = 444, 445, 446  # the same on every architecture
VERSION_FLAG, PATH_BENEATH = 1, 1
EXECUTE, READ_FILE, READ_DIRECTORY = 1 << 0, 1 << 2, 1 << 3
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # version -> how many rights it knows
NETWORK_FROM, SCOPES_FROM, NEWEST_RIGHTS = 4, 6, 16
NETWORK, SCOPES = 0b11, 0b11  # bind and connect; abstract sockets and signals


def version(libc: ctypes.CDLL) -> int:
    """The version this kernel speaks; 0 where it has none."""
    return max(0, int(libc.syscall(CREATE, None, 0, VERSION_FLAG)))


def ruleset(spoken: int) -> bytes:
    """Every right the kernel knows is taken, each in the form its version has."""
    rights = (1 << FILE_RIGHTS.get(spoken, NEWEST_RIGHTS)) - 1
    form = struct.pack("=Q", rights)
    if spoken >= NETWORK_FROM:
        form += struct.pack("=Q", NETWORK)
    if spoken >= SCOPES_FROM:
        form += struct.pack("=Q", SCOPES)
    return form


def permit(libc: ctypes.CDLL, rules: int, path: str) -> None:
    """Let a file, or all below a directory, be read and executed; a missing path is passed over."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    rights = READ_FILE | EXECUTE
    if os.path.isdir(path):  # noqa: PTH112 - pathlib is not worth its import here
        rights |= READ_DIRECTORY
    libc.syscall(ADD_RULE, rules, PATH_BENEATH, struct.pack("=Qi", rights, descriptor), 0)
    os.close(descriptor)


def restrict(libc: ctypes.CDLL, readable: tuple[str, ...] = ()) -> bool:
    """Take every right but those; False where the kernel has no Landlock."""
    spoken = version(libc)
    if not spoken:
        return False
    form = ruleset(spoken)
    rules = int(libc.syscall(CREATE, form, len(form), 0))
    if rules < 0:
        return False
    for path in readable:
        permit(libc, rules, path)
    done = int(libc.syscall(RESTRICT, rules, 0)) == 0
    os.close(rules)
    return done
