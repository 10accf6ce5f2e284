"""Landlock: restriction of files, TCP and signals of a process, as far as the kernel supports it.

The module uses only the standard library, so that the restricted process imports little.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Iterable

CREATE, ADD_RULE, RESTRICT = 444, 445, 446  # system calls, the same on every architecture
VERSION_FLAG, PATH_BENEATH = 1, 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIRECTORY = 1 << 0, 1 << 1, 1 << 2, 1 << 3
TRUNCATE, USE_DEVICE = 1 << 14, 1 << 15
# The other rights apply to directories only.
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | USE_DEVICE
READING = EXECUTE | READ_FILE | READ_DIRECTORY
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # ABI version: number of rights
NETWORK_FROM, SCOPES_FROM, NEWEST_RIGHTS = 4, 6, 16
NETWORK = 0b11  # bind and connect
SOCKETS, SIGNALS = 0b01, 0b10  # abstract sockets and signals to processes outside the domain


def version(libc: ctypes.CDLL) -> int:
    """Return the Landlock ABI version of this kernel; 0 if the kernel has no Landlock."""
    return max(0, int(libc.syscall(CREATE, None, 0, VERSION_FLAG)))


def every_right(abi: int) -> int:
    """Return a bit mask with all file rights of this ABI version."""
    return (1 << FILE_RIGHTS.get(abi, NEWEST_RIGHTS)) - 1


def ruleset(abi: int, files: int, network: int, scopes: int) -> bytes:
    """Return the attributes of a ruleset, encoded for this ABI version."""
    form = struct.pack("=Q", files)
    if abi >= NETWORK_FROM:
        form += struct.pack("=Q", network)
    if abi >= SCOPES_FROM:
        form += struct.pack("=Q", scopes)
    return form


def permit(libc: ctypes.CDLL, rules: int, path: str, rights: int) -> bool:
    """Grant rights to a file, or to a directory and everything below it.

    Return False if the path cannot be opened.
    """
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
    """Restrict file access, TCP and IPC scopes of this process permanently.

    Return False if the kernel does not support Landlock.
    """
    abi = version(libc)
    if not abi or (not files and abi < SCOPES_FROM):
        return False
    known = every_right(abi)
    form = ruleset(abi, known if files else 0, NETWORK if network else 0, scopes)
    rules = int(libc.syscall(CREATE, form, len(form), 0))
    if rules < 0:
        return False
    for paths, rights in ((readable, READING), (writable, known)):
        for path in paths:
            permit(libc, rules, path, rights)
    done = int(libc.syscall(RESTRICT, rules, 0)) == 0
    os.close(rules)
    return done
