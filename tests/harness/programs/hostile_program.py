"""Program that tries to escape its sandbox, and prints the targets that it reached.

The argument is JSON with the targets: `read`, `write`, `sockets` and `pids`. The program tries each
target in several ways.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import stat
import sys
from collections.abc import Callable
from functools import partial


def works(what: Callable[[], object]) -> bool:
    try:
        return what() not in (False, b"", [])
    except (OSError, ValueError):
        return False


def reads(path: str) -> bool:
    if os.path.isdir(path):
        return bool(os.listdir(path))
    with open(path, "rb") as file:
        return bool(file.read(1))


def connects(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as made:
        made.connect(path)
    return True


def writes(path: str) -> bool:
    """Return whether any kind of write succeeds."""
    ways: list[Callable[[], object]] = [
        lambda: os.close(os.open(path, os.O_WRONLY | os.O_APPEND)),
        lambda: os.truncate(path, 0),
        lambda: os.rename(path, path + ".moved"),
        lambda: os.unlink(path),
        lambda: os.link(path, os.path.expanduser("~/linked")),
        lambda: os.close(os.open(os.path.join(path, "made"), os.O_CREAT | os.O_WRONLY)),
        lambda: os.mkdir(os.path.join(path, "made-too")),
    ]
    return any([works(way) for way in ways])


def reaches(pid: int) -> list[str]:
    libc = ctypes.CDLL(None, use_errno=True)
    size = ctypes.create_string_buffer(64)

    class Vector(ctypes.Structure):
        _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))

    ours = Vector(ctypes.addressof(size), 64)
    ways: dict[str, Callable[[], object]] = {
        "signal": lambda: os.kill(pid, 0),
        "stop": lambda: os.kill(pid, signal.SIGCONT),
        "environ": lambda: reads(f"/proc/{pid}/environ"),
        "memory": lambda: open(f"/proc/{pid}/mem", "rb").close(),
        "maps": lambda: reads(f"/proc/{pid}/maps"),
        "root": lambda: os.listdir(f"/proc/{pid}/root"),
        "cwd": lambda: os.listdir(f"/proc/{pid}/cwd/"),
        "descriptors": lambda: [os.readlink(f"/proc/{pid}/fd/{each}") for each in range(3)],
        "trace": lambda: libc.ptrace(16, pid, None, None) == 0,
        "vector": lambda: (
            libc.process_vm_readv(pid, ctypes.byref(ours), 1, ctypes.byref(ours), 1, 0) > 0
        ),
        "limits": lambda: resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0)) is not None,
        "priority": lambda: os.setpriority(os.PRIO_PROCESS, pid, 19),
    }
    return [name for name, way in ways.items() if works(way)]


def devices() -> list[str]:
    """Return all devices that exist or can be created, except those without data."""
    known = {"null", "zero", "full", "random", "urandom", "tty", "ptmx"}
    found = []
    for at, _directories, files in os.walk("/dev"):
        for name in files:
            place = os.path.join(at, name)
            with contextlib.suppress(OSError):
                mode = os.stat(place).st_mode
                if (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)) and name not in known:
                    found += [place] if works(partial(reads, place)) else []
    made = os.path.expanduser("~/device")
    if works(lambda: os.mknod(made, stat.S_IFBLK | 0o600, os.makedev(254, 0))):
        found.append(made)
    return found


def gains() -> list[str]:
    libc = ctypes.CDLL(None, use_errno=True)
    ways: dict[str, Callable[[], object]] = {
        "root": lambda: os.setuid(0),
        "mount": lambda: libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0,
        "unmount": lambda: libc.umount2(b"/proc", 2) == 0,
        "remount": lambda: libc.mount(None, b"/usr", None, 0x1000 | 0x20, None) == 0,
        "chroot": lambda: os.chroot("/"),
        "kernel": lambda: writes("/proc/sys/kernel/core_pattern"),
        "hostname": lambda: libc.sethostname(b"x", 1) == 0,
        "terminal": lambda: os.open("/dev/tty", os.O_RDWR),
    }
    return [name for name, way in ways.items() if works(way)]


def main() -> None:
    request = json.loads(sys.argv[1])
    os.makedirs(os.path.expanduser("~/own"), exist_ok=True)
    fields = {
        "read": [path for path in request["read"] if works(partial(reads, path))],
        "write": [path for path in request["write"] if writes(path)],
        "sockets": [path for path in request["sockets"] if works(partial(connects, path))],
        "pids": {pid: ways for pid in request["pids"] if (ways := reaches(pid))},
        "devices": devices(),
        "gains": gains(),
        "groups": [each for each in os.getgroups() if each != os.getgid()],
        "home": sorted(os.listdir(os.path.expanduser("~"))),
        "is_root": os.getuid() == 0,
        "rights": [
            line.split()[1]
            for line in open("/proc/self/status")
            if line[:6] in ("CapInh", "CapPrm", "CapEff", "CapAmb") and int(line.split()[1], 16)
        ],
    }
    print(json.dumps(fields))


main()
