"""Access tokens of Google Cloud, made by google-auth from service accounts or the machine.

The token endpoint of a service account is a value of its key, so it is reached only through the
egress check.
"""

import asyncio
import json
from collections.abc import Mapping
from concurrent.futures import TimeoutError as NoResponseError
from typing import Any
from urllib.parse import urlsplit

from toolbus_common.errors import ToolbusError, UpstreamDeadError
from toolbus_executor.providers.api_keys import ApiKey
from toolbus_executor.providers.endpoints.libraries import library
from toolbus_executor.transport.dialer import Dialer
from toolbus_executor.transport.http1 import BrokenError, NotSentError, Pool, TooLargeError

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
SECONDS = 10.0  # for one request to a token endpoint


class GoogleTokens:
    """Access tokens by the name of a key. An expired token is replaced before its next use.

    `accounts` are the keys of service accounts in Google's JSON form, by name. Without any, the
    machine's default credentials are used.

    Raises:
        UpstreamDeadError: a key is invalid, or the library is missing.

    """

    def __init__(self, accounts: Mapping[str, str], dialer: Dialer) -> None:
        self._dialer = dialer
        self._credentials = {name: _service_account(name, key) for name, key in accounts.items()}
        self._errors = library("google.auth.exceptions", "gcp").GoogleAuthError
        self._lock = asyncio.Lock()

    async def lines(self, key: ApiKey, path: str, body: bytes) -> bytes:  # noqa: ARG002
        """Return the header line with the token. Raises `UpstreamDeadError`."""
        credentials = self._credentials.get(key.name)
        if credentials is None or not credentials.valid:
            async with self._lock:
                credentials = await self._valid(key.name)
        return f"authorization: Bearer {credentials.token}\r\n".encode()

    async def _valid(self, name: str) -> Any:
        """Return credentials with a valid token. Another request may have fetched it meanwhile."""
        try:
            credentials = self._credentials.get(name)
            if credentials is None:  # of the machine
                default = library("google.auth", "gcp").default
                credentials, _ = await asyncio.to_thread(default, scopes=SCOPES)
                self._credentials[name] = credentials
            if not credentials.valid:
                loop = asyncio.get_running_loop()
                request: Any = (
                    _CheckedRequest(self._dialer, loop)
                    if name
                    else library("google.auth.transport.requests", "gcp").Request()
                )
                await asyncio.to_thread(credentials.refresh, request)
        except (self._errors, ToolbusError) as error:
            reason = error.reason if isinstance(error, ToolbusError) else type(error).__name__
            raise UpstreamDeadError(
                f"Google issued no access token ({reason}); check the service account and its "
                "permissions.",
                sent=False,
            ) from error
        return credentials


def _service_account(name: str, key: str) -> Any:
    service_account = library("google.oauth2.service_account", "gcp")
    try:
        fields = json.loads(key)
        return service_account.Credentials.from_service_account_info(fields, scopes=SCOPES)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UpstreamDeadError(
            f"The credential '{name}' is not the key of a service account in Google's JSON form; "
            "correct it.",
            sent=False,
        ) from error


class _CheckedRequest:
    """The transport of google-auth over the executor's connections. It is used in a thread."""

    def __init__(self, dialer: Dialer, loop: asyncio.AbstractEventLoop) -> None:
        self._dialer = dialer
        self._loop = loop

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,  # noqa: ARG002 - the limit is always `SECONDS`
        **_: Any,
    ) -> "_Response":
        raw = body.encode() if isinstance(body, str) else body or b""
        sent = asyncio.run_coroutine_threadsafe(
            self._send(url, method, raw, headers or {}), self._loop
        )
        try:
            return sent.result(SECONDS + 1)
        except NoResponseError as error:
            sent.cancel()
            raise UpstreamDeadError("the token endpoint did not respond", sent=False) from error

    async def _send(
        self, url: str, method: str, body: bytes, headers: Mapping[str, str]
    ) -> "_Response":
        target = urlsplit(url)
        path = f"{target.path or '/'}?{target.query}" if target.query else target.path or "/"
        if any(char in path or char in target.netloc for char in "\r\n\0 "):
            raise UpstreamDeadError("the URL of the token endpoint is invalid", sent=False)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"{method} {path} HTTP/1.1\r\nhost: {target.netloc.rpartition('@')[2]}\r\n{lines}"
        request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
        pool = Pool(url, self._dialer)
        try:
            answer, raw = await pool.request(request, None, SECONDS)
        except (NotSentError, BrokenError, TooLargeError, TimeoutError) as error:
            reason = str(error) or "the token endpoint did not respond"
            raise UpstreamDeadError(reason, sent=False) from error
        finally:
            pool.close()
        found = {name.decode("latin-1"): v.decode("latin-1") for name, v in answer.headers.items()}
        return _Response(answer.status, found, raw)


class _Response:
    """A response in the form that google-auth reads."""

    def __init__(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.status, self.headers, self.data = status, headers, data
