"""Signatures of requests to Amazon Bedrock, made by botocore (AWS Signature Version 4)."""

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from toolbus_common.errors import UpstreamDeadError
from toolbus_executor.providers.api_keys import ApiKey
from toolbus_executor.providers.endpoints.libraries import library

SERVICE = "bedrock"
_SENT = ("Authorization", "X-Amz-Date", "X-Amz-Security-Token")


class AwsSignatures:
    """Signatures with one pair of keys. Without a pair, the machine's credentials are used.

    `values` are the credentials `access_key`, `secret_key` and optionally `session_token`.

    Raises:
        UpstreamDeadError: the library is missing.

    """

    def __init__(self, base_url: str, region: str, values: Mapping[str, str]) -> None:
        target = urlsplit(base_url)
        self._origin = f"{target.scheme}://{target.netloc.rpartition('@')[2]}"
        self._region = region
        self._auth = library("botocore.auth", "aws").SigV4Auth
        self._request = library("botocore.awsrequest", "aws").AWSRequest
        self._errors = library("botocore.exceptions", "aws").BotoCoreError
        self._credentials: Any = None
        if values:
            self._credentials = library("botocore.credentials", "aws").Credentials(
                values["access_key"], values["secret_key"], values.get("session_token")
            )
        self._is_own = bool(values)
        self._lock = asyncio.Lock()

    async def lines(
        self,
        key: ApiKey,  # noqa: ARG002
        path: str,
        body: bytes,
        listed: str = "",
    ) -> bytes:
        """Return the header lines with the signature. Raises `UpstreamDeadError`."""
        credentials = self._credentials if self._is_own else await self._of_machine()
        headers = {"content-type": "application/json"}
        method, url = ("GET", listed) if listed else ("POST", f"{self._origin}{path}")
        request = self._request(method, url, headers=headers, data=body)
        self._auth(credentials, SERVICE, self._region).add_auth(request)
        found = ((name, request.headers.get(name)) for name in _SENT)
        return "".join(f"{name.lower()}: {value}\r\n" for name, value in found if value).encode()

    async def _of_machine(self) -> Any:
        """Return the machine's credentials. They are renewed in a thread before they expire."""
        async with self._lock:
            try:
                return await asyncio.to_thread(self._read)
            except self._errors as error:
                raise _unavailable(type(error).__name__) from error

    def _read(self) -> Any:
        if self._credentials is None:
            session = library("botocore.session", "aws").Session()
            self._credentials = session.get_credentials()
        if self._credentials is None:
            raise _unavailable("the machine has none")
        return self._credentials.get_frozen_credentials()


def _unavailable(reason: str) -> UpstreamDeadError:
    return UpstreamDeadError(
        f"AWS credentials are unavailable ({reason}); configure a role of this machine, or set "
        "credentials.",
        sent=False,
    )
