"""Landlock: which files, TCP and signals a process keeps, as far as this kernel's version can say.

Only the standard library is used: what confines itself by it has imported little else.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Iterable

CREATE, ADD_RULE, RESTRICT = 444, 445, 446  # the same on every architecture
VERSION_FLAG, PATH_BENEATH = 1, 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIRECTORY = 1 << 0, 1 << 1, 1 << 2, 1 << 3
TRUNCATE, USE_DEVICE = 1 << 14, 1 << 15
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | USE_DEVICE  # the others: of directories
READING = EXECUTE | READ_FILE | READ_DIRECTORY
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # version -> how many rights it knows
NETWORK_FROM, SCOPES_FROM, NEWEST_RIGHTS = 4, 6, 16
NETWORK = 0b11  # bind and connect
SOCKETS, SIGNALS = 0b01, 0b10  # to who is not confined likewise: abstract sockets, signals


def version(libc: ctypes.CDLL) -> int:
    """The version this kernel speaks; 0 where it has none."""
    return max(0, int(libc.syscall(CREATE, None, 0, VERSION_FLAG)))


def every_right(spoken: int) -> int:
    """The rights on files this version knows."""
    return (1 << FILE_RIGHTS.get(spoken, NEWEST_RIGHTS)) - 1


def ruleset(spoken: int, files: int, network: int, scopes: int) -> bytes:
    """What is taken, in the form each version has."""
    form = struct.pack("=Q", files)
    if spoken >= NETWORK_FROM:
        form += struct.pack("=Q", network)
    if spoken >= SCOPES_FROM:
        form += struct.pack("=Q", scopes)
    return form


def permit(libc: ctypes.CDLL, rules: int, path: str, rights: int) -> bool:
    """Give rights on a file, or on all below a directory; False where the path is missing."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return False
    if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
        rights &= OF_FILES
    libc.syscall(ADD_RULE, rules, PATH_BENEATH, struct.pack("=Qi", rights, descriptor), 0)
    os.close(descriptor)
    return True


def restrict(
    libc: ctypes.CDLL,
    readable: Iterable[str] = (),
    writable: Iterable[str] = (),
    *,
    files: bool = True,
    network: bool = True,
    scopes: int = SOCKETS | SIGNALS,
) -> bool:
    """Take every right on files but those, TCP, and what is in scope; False without Landlock."""
    spoken = version(libc)
    if not spoken or (not files and spoken < SCOPES_FROM):
        return False
    known = every_right(spoken)
    form = ruleset(spoken, known if files else 0, NETWORK if network else 0, scopes)
    rules = int(libc.syscall(CREATE, form, len(form), 0))
    if rules < 0:
        return False
    for paths, rights in ((readable, READING), (writable, known)):
        for path in paths:
            permit(libc, rules, path, rights)
    done = int(libc.syscall(RESTRICT, rules, 0)) == 0
    os.close(rules)
    return done
