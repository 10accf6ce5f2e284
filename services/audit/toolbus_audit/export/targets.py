"""Targets of exported files: a local directory, or a bucket."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Protocol

from toolbus_common.config import Place
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.object_storage.bucket import BucketTarget
from toolbus_common.object_storage.errors import TargetError
from toolbus_common.secrets import Secrets

# Whether the operator (not an API caller) configured the location.
IsOperatorNamed = Callable[[], bool]


class Target(Protocol):
    """Store of files. Writes are atomic: a file is complete or absent."""

    async def put(self, path: str, data: bytes) -> None:
        """Write or replace a file. Raises `TargetError`."""


def target_for(
    settings: Place,
    http: HttpClient,
    secrets: Secrets,
    is_operator_named: IsOperatorNamed,
    threads: Executor | None = None,
) -> Target:
    """Return the target for a configured location. The target writes on `threads`."""
    if settings.in_bucket:
        return BucketTarget(settings, http, secrets, is_operator_named, threads)
    return DirectoryTarget(Path(settings.to), is_operator_named, threads)


class DirectoryTarget:
    """Local directory. It must exist: a missing one may be a disk that is not mounted."""

    def __init__(
        self, root: Path, is_operator_named: IsOperatorNamed, threads: Executor | None = None
    ) -> None:
        self._root = root
        self._is_operator_named = is_operator_named
        self._threads = threads

    async def put(self, path: str, data: bytes) -> None:
        """Write a temporary file, flush it to disk, and rename it."""
        if not self._is_operator_named():
            raise TargetError(
                "only an operator may configure a directory as target; use 'toolbus apply'"
            )
        try:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._threads, self._write, self._root / path, data)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise TargetError(f"the directory is not writable ({reason})") from error

    def _write(self, path: Path, data: bytes) -> None:
        if not self._root.is_dir():
            raise FileNotFoundError(2, "it does not exist; create it, and let audit write to it")
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_name(f".{path.name}.part")
        with half.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        half.replace(path)
        _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
