"""Buckets as targets of backups. Endpoint and credentials come from the environment."""

import asyncio
import os
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from toolbus_cli.backup.errors import BackupError
from toolbus_cli.backup.manifest import FILE, MAX_MANIFEST
from toolbus_cli.backup.target import missing
from toolbus_common.config import Place
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.resolver import CheckedResolver
from toolbus_common.egress.tls import Tls
from toolbus_common.object_storage.bucket import BucketTarget
from toolbus_common.object_storage.errors import MissingFileError, TargetError
from toolbus_common.secrets import Secrets, stores_of
from toolbus_common.settings import Settings

SECONDS = 120.0  # for one file of at most 16 MiB
# The variables that the tools of these stores read too, by field of the configuration.
VARIABLES: Mapping[str, Mapping[str, str]] = {
    "s3": {
        "endpoint": "AWS_ENDPOINT_URL",
        "region": "AWS_REGION",
        "access_key": "AWS_ACCESS_KEY_ID",
        "secret_key": "AWS_SECRET_ACCESS_KEY",
        "session_token": "AWS_SESSION_TOKEN",
    },
    "gs": {
        "endpoint": "STORAGE_EMULATOR_HOST",
        "service_account": "GOOGLE_APPLICATION_CREDENTIALS",
    },
    "az": {
        "endpoint": "AZURE_STORAGE_ENDPOINT",
        "account_name": "AZURE_STORAGE_ACCOUNT_NAME",
        "account_key": "AZURE_STORAGE_ACCOUNT_KEY",
        "sas_token": "AZURE_STORAGE_SAS_TOKEN",
    },
}
_OF_STORE = ("endpoint", "region")
R = TypeVar("R")


class BucketFiles:
    """The files of a backup in a bucket, below the prefix of its URL."""

    def __init__(self, url: str, environment: Mapping[str, str]) -> None:
        self._url = url
        self._settings = _settings(url, environment)
        egress = Settings()
        self._bucket = BucketTarget(
            self._settings,
            HttpClient(CheckedResolver(egress.egress, tls_to_public=True), Tls(egress.egress_ca)),
            Secrets(stores_of({})),
            lambda: True,  # the operator names the bucket in the command
            seconds=SECONDS,
        )

    def prepare(self) -> None:
        """Reject a prefix that already has a backup. Raises `BackupError`."""
        try:
            self._run(self._bucket.get(FILE, MAX_MANIFEST))
        except MissingFileError:
            return
        raise BackupError(f"'{self._url}' has a backup; name a new prefix for each backup.")

    def put(self, name: str, data: bytes) -> None:
        """Upload a file. Raises `BackupError`."""
        self._run(self._bucket.put(name, data))

    def get(self, name: str, longest: int) -> bytes:
        """Download a file. Raises `BackupError`."""
        try:
            return self._run(self._bucket.get(name, longest))
        except MissingFileError as error:
            raise missing(name, self._url) from error

    def _run(self, work: Coroutine[Any, Any, R]) -> R:
        try:
            return asyncio.run(work)
        except MissingFileError:
            raise
        except TargetError as error:
            raise BackupError(
                f"'{self._url}' cannot be used: {error}. Correct this, and run the command again."
            ) from error


def _settings(url: str, environment: Mapping[str, str]) -> Place:
    kind = url.partition("://")[0]
    if kind not in VARIABLES:
        raise BackupError(f"'{url}' is neither a directory nor a URL with s3://, gs:// or az://.")
    given = {
        field: environment[variable]
        for field, variable in VARIABLES[kind].items()
        if environment.get(variable)
    }
    if file := given.get("service_account"):
        try:
            given["service_account"] = Path(file).read_text()
        except (OSError, UnicodeError) as error:
            raise BackupError(
                f"'{file}', which {VARIABLES[kind]['service_account']} names, cannot be read "
                f"({error}); correct the variable or the file."
            ) from error
    if kind == "az" and "account_name" in given and "endpoint" not in given:
        given["endpoint"] = f"https://{given['account_name']}.blob.core.windows.net"
    store = {name: given.pop(name) for name in _OF_STORE if name in given}
    try:
        return Place.model_validate({"to": url, **store, "credentials": given})
    except ValidationError as error:
        why = "; ".join(each["msg"].removeprefix("Value error, ") for each in error.errors())
        variables = ", ".join(VARIABLES[kind].values())
        raise BackupError(f"'{url}' cannot be used: {why}. Set {variables}.") from error


def bucket_files(url: str) -> BucketFiles:
    """Return the bucket of a URL, with the credentials of the environment."""
    return BucketFiles(url, os.environ)
