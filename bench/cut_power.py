"""A disk whose power is cut: afterwards it has what was synced, and what its kernel had written.

It is an ext4 file system in a file. The ioctl `EXT4_IOC_SHUTDOWN` ends it without a flush, and the
pages in memory are dropped; mounting it again recovers it, as after a power failure.
"""

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN
_NO_FLUSH = 2  # EXT4_GOING_FLAGS_NOLOGFLUSH


class Disk:
    """One file system. Needs root, loop devices, and a mount namespace of its own."""

    def __init__(self, image: Path, directory: Path, megabytes: int = 1024) -> None:
        self.directory = directory
        self._image = image
        directory.mkdir(parents=True)
        with image.open("wb") as file:
            file.truncate(megabytes << 20)
        _run("mkfs.ext4", "-q", str(image))

    @contextmanager
    def mounted(self) -> Iterator["Disk"]:
        """Mount it until the context ends."""
        self.mount()
        try:
            yield self
        finally:
            _run("umount", str(self.directory))

    def mount(self) -> None:
        """Mount it."""
        _run("mount", "-o", "loop", str(self._image), str(self.directory))

    def sync(self) -> None:
        """Write everything to the disk."""
        _run("sync", "--file-system", str(self.directory))

    def cut(self) -> None:
        """Cut the power. Every later access of the running processes fails."""
        descriptor = os.open(self.directory, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _NO_FLUSH))
        finally:
            os.close(descriptor)

    def restore(self) -> None:
        """Mount it again after the power was cut and its processes have ended."""
        _run("umount", str(self.directory))
        self.mount()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
