"""Buckets of S3, Google Cloud Storage and Azure Blob Storage as targets of files, over obstore."""

import asyncio
import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolbus_common.config import Place
from toolbus_common.egress import EgressError, target_of
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.tls import UNREADABLE_CA, Tls
from toolbus_common.object_storage.errors import MissingFileError, TargetError
from toolbus_common.object_storage.store_proxy import LARGEST_RESPONSE, StoreProxy
from toolbus_common.secrets import SecretError, Secrets, filled

_Work = Callable[[Any], bytes]  # with a store of the library
SECONDS = 10.0  # for one file, from the start of its thread to the response
_LONGEST = "600s"  # longer than any `seconds`, which is the limit
_STATUS = re.compile(r"non-2xx status code: ([0-9]{3})")
_CODE = re.compile(r"<Code>([0-9A-Za-z]{1,64})</Code>")
_NO_RETRIES = {"max_retries": 0}  # the caller retries
INVALID_CREDENTIALS = "its credentials are not valid; correct them"
# The library's error texts contain the URL, which has no whitespace.
_UNTRUSTED = re.compile(r"\sInvalidCertificate\(")
_INVALID_KEY = re.compile(r"Generic (GCS error: GCP credential error|\w+CryptoProvider error)")
# Variables that the library reads, and that no option overrides; in upper case.
ENVIRONMENT = {
    "s3": ("AWS_CHECKSUM_ALGORITHM", "AWS_SERVER_SIDE_ENCRYPTION"),
    "gs": ("GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH", "SERVICE_ACCOUNT"),
    "az": ("AZURE_STORAGE_ENCRYPTION_KEY",),
}


@dataclass(frozen=True, slots=True)
class BucketTarget:
    """Bucket as a target. Each file is one PUT, which replaces a file with the same path."""

    settings: Place
    http: HttpClient
    secrets: Secrets
    is_operator_named: Callable[[], bool]
    threads: Executor | None = None
    seconds: float | None = None  # for one file; default: `SECONDS`

    async def put(self, path: str, data: bytes) -> None:
        """Upload a file. Raises `TargetError`."""

        def upload(opened: Any) -> bytes:
            import obstore  # noqa: PLC0415

            obstore.put(opened, f"{self.settings.prefix}{path}", data, use_multipart=False)
            return b""

        await self._run(upload, LARGEST_RESPONSE)

    async def get(self, path: str, longest: int) -> bytes:
        """Download a file. Raises `TargetError`, also if the file is longer than `longest`."""

        def download(opened: Any) -> bytes:
            import obstore  # noqa: PLC0415

            return bytes(obstore.get(opened, f"{self.settings.prefix}{path}").bytes())

        return await self._run(download, longest + LARGEST_RESPONSE)

    async def _run(self, work: _Work, largest: int) -> bytes:
        """Work with the store through a proxy, on a thread. Raises `TargetError`."""
        try:
            credentials = await self._credentials()
            authority = target_of(self.settings.endpoint_url).authority
        except (EgressError, SecretError) as error:
            raise TargetError(str(error)) from error
        proxy = StoreProxy(
            self.http.resolver,
            authority,
            operator_named=self.is_operator_named(),
            largest=largest,
        )
        loop = asyncio.get_running_loop()
        seconds = SECONDS if self.seconds is None else self.seconds
        try:
            async with asyncio.timeout(None) as limit, proxy.listening() as url:

                def begin() -> None:
                    with suppress(RuntimeError):  # the upload was cancelled meanwhile
                        limit.reschedule(loop.time() + seconds)

                def run() -> bytes:
                    loop.call_soon_threadsafe(begin)
                    return _on_store(self, credentials, url, work)

                # The asynchronous functions are not used, because their threads call Python and
                # abort a process that ends meanwhile. When the time is over, the proxy closes the
                # connection, which ends this thread.
                return await loop.run_in_executor(self.threads, run)
        except TimeoutError as error:
            raise TargetError(f"it did not respond within {seconds:.3g} s") from error
        except EgressError as error:
            raise TargetError(str(error)) from error
        except _ClientError as error:
            raise TargetError(proxy.problem or str(error)) from error

    async def _credentials(self) -> dict[str, str]:
        configured = self.settings.credentials
        found = await self.secrets.read(configured.values())
        return {name: filled(value, found) for name, value in configured.items()}


class _ClientError(Exception):
    """The library's error without its text, which can contain parts of the store's response."""


def _on_store(
    target: BucketTarget, credentials: Mapping[str, str], proxy: str, work: _Work
) -> bytes:
    """Work through a proxy. Raises `_ClientError`, `MissingFileError` or `EgressError`."""
    from obstore import store  # noqa: PLC0415 - only a process that uses a bucket needs it
    from obstore.exceptions import BaseError, UnauthenticatedError  # noqa: PLC0415

    settings = target.settings
    _check_environment(settings.kind)
    create = {"s3": store.S3Store, "gs": store.GCSStore, "az": store.AzureStore}[settings.kind]
    options = _client_options(settings, target.http.tls, proxy)
    try:
        opened = create(
            settings.bucket,
            client_options=options,
            retry_config=_NO_RETRIES,
            **_CONFIGURE[settings.kind](settings, credentials),
        )
    except (BaseError, OSError, ValueError) as error:
        raise _ClientError(_configuration_reason(str(error))) from None
    try:
        return work(opened)
    except FileNotFoundError:
        raise MissingFileError("it does not have this file") from None
    except (BaseError, OSError, ValueError) as error:
        is_unsigned = isinstance(error, UnauthenticatedError)
        raise _ClientError(_reason(str(error), is_unsigned=is_unsigned)) from None


def _check_environment(kind: str) -> None:
    """Raise `_ClientError` for variables that would change an upload."""
    found = [name for name in os.environ if name.upper() in ENVIRONMENT[kind]]
    if found:
        raise _ClientError(
            f"{found[0]} is set in the environment, and the bucket client reads it too; unset it"
        )


def _client_options(settings: Place, tls: Tls, proxy: str) -> dict[str, Any]:
    """Return every option, because the library reads missing options from the environment."""
    tls.check()
    options = {
        "proxy_url": proxy,
        "proxy_excludes": "",
        "allow_http": settings.endpoint_url.startswith("http://"),
        "allow_invalid_certificates": False,
        "http1_only": True,
        "pool_max_idle_per_host": "0",
        "connect_timeout": _LONGEST,
        "timeout": _LONGEST,
        "user_agent": "toolbus",
    }
    if tls.extra:
        try:
            options["root_certificate"] = Path(tls.extra).read_bytes()
        except OSError as error:  # it was removed after the check, whose result is cached
            raise EgressError(UNREADABLE_CA) from error
    return options


def _s3(settings: Place, credentials: Mapping[str, str]) -> dict[str, Any]:
    keys = {
        "access_key_id": credentials["access_key"],
        "secret_access_key": credentials["secret_key"],
        "token": credentials.get("session_token"),
        "expires_at": None,
    }
    config = {
        "endpoint": settings.endpoint_url,
        "aws_endpoint_url_s3": settings.endpoint_url,  # else the environment sets it
        "region": settings.region,
        "virtual_hosted_style_request": False,
        "unsigned_payload": False,
        "skip_signature": False,
        "s3_express": False,
        "request_payer": False,
        # Not used by an upload, but a value that is not valid would fail it.
        "conditional_put": "etag",
        "copy_if_not_exists": "multipart",
        "disable_bulk_delete": False,
        "disable_tagging": False,
    }
    return {"config": config, "credential_provider": lambda: keys}


def _gcs(settings: Place, credentials: Mapping[str, str]) -> dict[str, Any]:
    config = {
        "service_account_key": credentials["service_account"],
        "base_url": settings.endpoint_url,
        "skip_signature": False,
    }
    return {"config": config}


def _azure(settings: Place, credentials: Mapping[str, str]) -> dict[str, Any]:
    keys: dict[str, Any] = {"expires_at": None}
    if "account_key" in credentials:
        keys["access_key"] = credentials["account_key"]
    else:
        keys["sas_token"] = credentials["sas_token"].removeprefix("?")
    config = {
        "account_name": credentials.get("account_name") or settings.account,
        "endpoint": settings.endpoint_url,
        "skip_signature": False,
        "use_emulator": False,
        "use_fabric_endpoint": False,
        "disable_tagging": False,  # not used, but a value that is not valid would fail the upload
    }
    return {"config": config, "credential_provider": lambda: keys}


_CONFIGURE: Mapping[str, Callable[[Place, Mapping[str, str]], dict[str, Any]]] = {
    "s3": _s3,
    "gs": _gcs,
    "az": _azure,
}


def _configuration_reason(text: str) -> str:
    """Return why the library rejects the configuration, without a part of the library's text."""
    if _INVALID_KEY.match(text):
        return INVALID_CREDENTIALS
    return (
        "its settings are not valid; correct its bucket and endpoint, and unset variables of its "
        "kind (AWS_…, GOOGLE_…, AZURE_…) in the environment"
    )


def _reason(text: str, *, is_unsigned: bool) -> str:
    """Return why an upload failed. Only status and code are taken from the library's text."""
    if status := _STATUS.search(text):
        code = _CODE.search(text)
        return f"it returned status {status[1]}" + (f" ({code[1]})" if code else "")
    if is_unsigned:
        return INVALID_CREDENTIALS
    if _UNTRUSTED.search(text):
        return "its certificate is not trusted; add its certificate authority to TOOLBUS_EGRESS_CA"
    return "it closed the connection without a response, or its response is not valid HTTP"
