"""Linux mount system calls by number: detached trees, their attributes, and a new root.

The module imports only a few modules of the standard library. Every function raises `OSError`.
"""

import ctypes
import os
import struct

from toolbus_executor.isolation.linux.syscalls import libc

# These numbers are the same on every architecture.
_OPEN_TREE, _MOVE_MOUNT, _SET_ATTRIBUTES = 428, 429, 442
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CLONE, _CLOEXEC, _RECURSIVE, _EMPTY_PATH, _HERE = 1, os.O_CLOEXEC, 0x8000, 0x1000, -100
_FROM_EMPTY_PATH = 4
READ_ONLY, NO_SUID, NO_DEVICES, NO_EXEC, ID_MAPPED = 1, 2, 4, 8, 0x00100000
_PRIVATE, _REC, _DETACH = 1 << 18, 0x4000, 2


def make_private() -> None:
    """Stop mount propagation to and from the parent namespace."""
    _check(libc.mount(b"none", b"/", None, _PRIVATE | _REC, None), "/")


def mount(kind: str, path_name: str, flags: int, options: str = "") -> None:
    """Mount a virtual file system of this kind at a path."""
    data = options.encode() or None
    _check(libc.mount(kind.encode(), os.fsencode(path_name), kind.encode(), flags, data), path_name)


def detach(path_name: str) -> None:
    """Unmount the topmost mount of a path lazily."""
    _check(libc.umount2(os.fsencode(path_name), _DETACH), path_name)


def tree(path: str) -> int:
    """Return the descriptor of a detached copy of the mounts at and below a path."""
    flags = _CLONE | _CLOEXEC | _RECURSIVE
    return _check(libc.syscall(_OPEN_TREE, _HERE, os.fsencode(path), flags), path)


def restrict(mounted: int | str, attributes: int, users: int = -1, *, all_below: bool) -> None:
    """Add mount attributes to a tree or to a mounted path.

    `users` is the descriptor of a user namespace whose mapping applies to the owners of files.
    `all_below` includes the mounts below.
    """
    form = struct.pack("=4Q", attributes | (ID_MAPPED if users >= 0 else 0), 0, 0, max(users, 0))
    at, path = (mounted, b"") if isinstance(mounted, int) else (_HERE, os.fsencode(mounted))
    flags = (_EMPTY_PATH if path == b"" else 0) | (_RECURSIVE if all_below else 0)
    _check(libc.syscall(_SET_ATTRIBUTES, at, path, flags, form, len(form)), str(mounted))


def attach(mounted: int, path_name: str) -> None:
    """Attach a detached tree at a path, and close the tree's descriptor."""
    try:
        done = libc.syscall(
            _MOVE_MOUNT,
            mounted,
            b"",
            _HERE,
            os.fsencode(path_name),
            ctypes.c_uint(_FROM_EMPTY_PATH),
        )
        _check(done, path_name)
    finally:
        os.close(mounted)


def enter_root(path_name: str) -> None:
    """Make a mount the root directory, and detach the old root."""
    os.chdir(path_name)
    number = _PIVOT_ROOT.get(os.uname().machine, -1)
    _check(libc.syscall(number, b".", b"."), path_name)
    detach(".")
    os.chdir("/")


def _check(result: int, path: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return int(result)
