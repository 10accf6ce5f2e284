"""Targets of backups: a local directory."""

import os
from pathlib import Path
from typing import Protocol

from toolbus_cli.backup.errors import BackupError
from toolbus_cli.backup.manifest import FILE


class Target(Protocol):
    """Store of the files of one backup."""

    def prepare(self) -> None:
        """Prepare for a new backup. Raises `BackupError` if there is one already."""

    def put(self, name: str, data: bytes) -> None:
        """Store a file. Raises `BackupError`."""

    def get(self, name: str, longest: int) -> bytes:
        """Return at most `longest` + 1 bytes of a file. Raises `BackupError`."""


class DirectoryTarget:
    """A local directory, which only its owner can read."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def prepare(self) -> None:
        """Create the directory, or accept an empty one. Raises `BackupError`."""
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(self._root.iterdir()):
                raise BackupError(
                    f"'{self._root}' is not empty; name a new directory for each backup."
                )
            self._root.chmod(0o700)
        except OSError as error:
            raise BackupError(
                f"'{self._root}' cannot be written ({error.strerror}); name another directory."
            ) from error

    def put(self, name: str, data: bytes) -> None:
        """Write a file, and flush it to disk. Raises `BackupError`."""
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with os.fdopen(os.open(self._root / name, flags, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise BackupError(
                f"'{self._root / name}' cannot be written ({error.strerror}); free space or name "
                "another directory. What was written so far is not a backup."
            ) from error

    def get(self, name: str, longest: int) -> bytes:
        """Read a file. Raises `BackupError`."""
        try:
            with (self._root / name).open("rb") as file:
                return file.read(longest + 1)
        except FileNotFoundError as error:
            raise missing(name, str(self._root)) from error
        except OSError as error:
            raise BackupError(
                f"'{self._root / name}' cannot be read ({error.strerror}); correct its permissions."
            ) from error


def missing(name: str, where: str) -> BackupError:
    """Return the error for a file that a backup does not have."""
    if name == FILE:
        return BackupError(
            f"'{where}' has no {FILE}: it is not a backup, or its creation did not end. Name "
            "another backup."
        )
    return BackupError(f"'{name}' is missing in '{where}'; use another copy of the backup.")
