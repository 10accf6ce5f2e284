"""Targets of exported files: a local directory, or a bucket of an S3-compatible store."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from toolbus_audit.export.aws_sigv4 import Keys, sign_request, url_of
from toolbus_common.config import Place
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.http_messages import HttpError, HttpRequest
from toolbus_common.secrets import SecretError, Secrets, filled

IsOperatorNamed = Callable[
    [], bool
]  # whether the operator (not an API caller) configured the location
_PUT = "PUT"
LARGEST_RESPONSE = 65_536
_LONGEST_CODE = 64


class TargetError(Exception):
    """The target does not accept files now; the message says why."""


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
    """Return the target for a configured location; it writes on these threads."""
    if settings.in_bucket:
        return BucketTarget(settings, http, secrets, is_operator_named)
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
            raise FileNotFoundError(2, "it does not exist; create it, writable for audit")
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


class BucketTarget:
    """S3 bucket, addressed by path, the form that every S3-compatible store supports."""

    def __init__(
        self,
        settings: Place,
        http: HttpClient,
        secrets: Secrets,
        is_operator_named: IsOperatorNamed,
    ) -> None:
        self._settings = settings
        self._http = http
        self._secrets = secrets
        self._is_operator_named = is_operator_named

    async def put(self, path: str, data: bytes) -> None:
        """Upload with one PUT; the store verifies the bytes with the signed hash."""
        try:
            await self._put(await self._keys(), path, data)
        except (HttpError, SecretError) as error:
            raise TargetError(str(error)) from error

    async def _put(self, keys: Keys, path: str, data: bytes) -> None:
        url = url_of(self._settings.bucket_url, path)
        # The signature contains a hash of the data, which takes long enough for a thread.
        headers = await asyncio.to_thread(
            sign_request, keys, _PUT, url, data, {}, datetime.now(UTC)
        )
        response = await self._http.send(
            HttpRequest(
                _PUT, url, data, headers, operator_named=self._is_operator_named(),
                max_bytes=LARGEST_RESPONSE, cut=True,
            )
        )  # fmt: skip
        if not response.accepted:
            raise HttpError(f"it returned status {response.status}{_error_code(response.body)}")

    async def _keys(self) -> Keys:
        configured = self._settings.credentials
        found = await self._secrets.read(configured.values())
        values = {name: filled(value, found) for name, value in configured.items()}
        token = values.get("session_token", "")
        return Keys(values["access_key"], values["secret_key"], token, self._settings.region)


def _error_code(body: bytes) -> str:
    """Return the code in S3's error XML; the message is omitted, it may quote credentials."""
    _, found, rest = body.partition(b"<Code>")
    code = rest.partition(b"</Code>")[0][:_LONGEST_CODE].decode("ascii", "replace")
    return f" ({code})" if found and code.isalnum() else ""
