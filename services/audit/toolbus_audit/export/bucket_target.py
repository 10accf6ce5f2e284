"""Buckets of S3, Google Cloud Storage and Azure Blob Storage as targets of files, over obstore."""

import asyncio
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolbus_audit.export.errors import TargetError
from toolbus_audit.export.store_proxy import StoreProxy
from toolbus_common.config import Place
from toolbus_common.egress import EgressError, target_of
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.tls import Tls
from toolbus_common.secrets import SecretError, Secrets, filled

SECONDS = 10.0  # for one file, from name resolution to the response
_LONGEST = "60s"  # `SECONDS` are over earlier
_STATUS = re.compile(r"non-2xx status code: ([0-9]{3})")
_CODE = re.compile(r"<Code>([0-9A-Za-z]{1,64})</Code>")
_NO_RETRIES = {"max_retries": 0}  # the caller repeats
_INVALID = "its credentials are not valid; correct them"
# Parts of the library's texts, and the reasons they stand for.
_REASONS = {
    "InvalidCertificate(": (
        "its certificate is not trusted; add its certificate authority to TOOLBUS_EGRESS_CA"
    ),
    "service account path": (
        "GOOGLE_SERVICE_ACCOUNT is set in the environment of audit, which the client of Google's "
        "buckets reads too; unset it"
    ),
    "credential": _INVALID,
    "ReadPem": _INVALID,
    "Base64": _INVALID,
}


@dataclass(frozen=True, slots=True)
class BucketTarget:
    """Bucket, addressed by path. One PUT per file, which replaces a file of this name."""

    settings: Place
    http: HttpClient
    secrets: Secrets
    is_operator_named: Callable[[], bool]
    threads: Executor | None = None

    async def put(self, path: str, data: bytes) -> None:
        """Upload a file. Raises `TargetError`."""
        try:
            credentials = await self._credentials()
            authority = target_of(self.settings.endpoint_url).authority
        except (EgressError, SecretError) as error:
            raise TargetError(str(error)) from error
        proxy = StoreProxy(self.http.resolver, authority, operator_named=self.is_operator_named())
        try:
            async with asyncio.timeout(SECONDS), proxy.listening() as url:
                # Not `put_async`: its threads call Python, and abort a process that ends meanwhile.
                # When the time is over, the proxy closes the connection, which ends the thread.
                await asyncio.get_running_loop().run_in_executor(
                    self.threads, _put, self, credentials, url, path, data
                )
        except TimeoutError as error:
            raise TargetError(f"it did not respond within {SECONDS:.3g} s") from error
        except EgressError as error:
            raise TargetError(str(error)) from error
        except _ClientError as error:
            raise TargetError(proxy.problem or str(error)) from error

    async def _credentials(self) -> dict[str, str]:
        configured = self.settings.credentials
        found = await self.secrets.read(configured.values())
        return {name: filled(value, found) for name, value in configured.items()}


class _ClientError(Exception):
    """The library's error without its text, which repeats what the store returned."""


def _put(
    target: BucketTarget, credentials: Mapping[str, str], proxy: str, path: str, data: bytes
) -> None:
    """Upload a file through a proxy. Raises `_ClientError` or `EgressError`."""
    import obstore  # noqa: PLC0415 - a process that writes to no bucket does not need it
    from obstore import store  # noqa: PLC0415
    from obstore.exceptions import BaseError  # noqa: PLC0415

    settings = target.settings
    create = {"s3": store.S3Store, "gs": store.GCSStore, "az": store.AzureStore}[settings.kind]
    options = _client_options(settings, target.http.tls, proxy)
    try:
        opened = create(
            settings.bucket,
            client_options=options,
            retry_config=_NO_RETRIES,
            **_CONFIGURE[settings.kind](settings, credentials),
        )
        obstore.put(opened, f"{settings.prefix}{path}", data, use_multipart=False)
    except (BaseError, OSError, ValueError) as error:
        raise _ClientError(_reason(str(error))) from None


def _client_options(settings: Place, tls: Tls, proxy: str) -> dict[str, Any]:
    """Return all options that matter: the library reads others from the environment."""
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
        options["root_certificate"] = Path(tls.extra).read_bytes()
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
        "aws_endpoint_url_s3": settings.endpoint_url,  # the environment sets it too
        "region": settings.region,
        "virtual_hosted_style_request": False,
        "unsigned_payload": False,
        "skip_signature": False,
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
    }
    return {"config": config, "credential_provider": lambda: keys}


_CONFIGURE: Mapping[str, Callable[[Place, Mapping[str, str]], dict[str, Any]]] = {
    "s3": _s3,
    "gs": _gcs,
    "az": _azure,
}


def _reason(text: str) -> str:
    """Return the reason in the library's text; it contains no other words of the text."""
    if status := _STATUS.search(text):
        code = _CODE.search(text)
        return f"it returned status {status[1]}" + (f" ({code[1]})" if code else "")
    for part, reason in _REASONS.items():
        if part in text:
            return reason
    return "it closed the connection without a response, or its response is not valid HTTP"
