"""Where files go: a directory of this machine, or a bucket of an S3-compatible store."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from toolbus_audit.delivery.http_client import Poster, PostError, Request
from toolbus_audit.export.aws_sigv4 import Keys, signed, url_of
from toolbus_common.config import Place
from toolbus_common.secrets import SecretError, Secrets, filled

Named = Callable[[], bool]  # whether the operator named the place himself
_PUT = "PUT"
LARGEST_ANSWER = 65_536
_LONGEST_CODE = 64


class PlaceError(Exception):
    """It does not take files now; the sentence says why."""


class Target(Protocol):
    """Takes whole files: one is there with all its bytes, or not at all."""

    async def put(self, path: str, data: bytes) -> None:
        """Write a file, over one of its name. Raises `PlaceError`."""


def target_for(
    export: Place,
    poster: Poster,
    secrets: Secrets,
    named: Named,
    threads: Executor | None = None,
) -> Target:
    """Where an export's files go, written on these threads."""
    if export.in_bucket:
        return Bucket(export, poster, secrets, named, threads)
    return Directory(Path(export.to), named, threads)


class Directory:
    """A directory. It has to be there: one that is not may be a disk that is not mounted."""

    def __init__(self, root: Path, named: Named, threads: Executor | None = None) -> None:
        self._root = root
        self._named = named
        self._threads = threads

    async def put(self, path: str, data: bytes) -> None:
        """Write beside, flush to disk, and rename."""
        if not self._named():
            raise PlaceError(
                "a directory is written to only where the operator named it; use 'toolbus apply'"
            )
        try:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._threads, self._write, self._root / path, data)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise PlaceError(f"its directory cannot be written ({reason})") from error

    def _write(self, path: Path, data: bytes) -> None:
        if not self._root.is_dir():
            raise FileNotFoundError(2, "it is not there; make it, for audit to write in")
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_name(f".{path.name}.part")
        with half.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        half.replace(path)
        _flushed(path.parent)


def _flushed(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Bucket:
    """A bucket, its name in the path: every S3-compatible store knows that form."""

    def __init__(
        self,
        export: Place,
        poster: Poster,
        secrets: Secrets,
        named: Named,
        threads: Executor | None = None,
    ) -> None:
        self._export = export
        self._poster = poster
        self._secrets = secrets
        self._named = named
        self._threads = threads

    async def put(self, path: str, data: bytes) -> None:
        """One PUT; the store holds the bytes against the hash that is signed."""
        try:
            keys = await self._keys()
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._threads, self._put, keys, path, data)
        except (PostError, SecretError) as error:
            raise PlaceError(str(error)) from error

    def _put(self, keys: Keys, path: str, data: bytes) -> None:
        url = url_of(self._export.bucket_url, path)
        headers = signed(keys, _PUT, url, data, {}, datetime.now(UTC))
        request = Request(_PUT, url, data, headers)
        answered = self._poster.ask(request, named=self._named(), largest=LARGEST_ANSWER)
        if not answered.good:
            raise PostError(f"it answered {answered.status}{_code(answered.body)}")

    async def _keys(self) -> Keys:
        declared = self._export.credentials
        found = await self._secrets.read(declared.values())
        told = {name: filled(value, found) for name, value in declared.items()}
        token = told.get("session_token", "")
        return Keys(told["access_key"], told["secret_key"], token, self._export.region)


def _code(body: bytes) -> str:
    """The code in S3's XML, such as AccessDenied: its sentence may quote credentials."""
    _, found, rest = body.partition(b"<Code>")
    code = rest.partition(b"</Code>")[0][:_LONGEST_CODE].decode("ascii", "replace")
    return f" ({code})" if found and code.isalnum() else ""
