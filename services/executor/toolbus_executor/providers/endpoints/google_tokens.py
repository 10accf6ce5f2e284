"""Access tokens of Google Cloud, made by google-auth from service accounts or the machine.

The token endpoint of a service account is a value in its key file. So it is reached only through
the egress check, and the token that it returns is checked before it becomes a header line.
"""

import asyncio
import json
from collections.abc import Mapping
from concurrent.futures import TimeoutError as NoResponseError
from typing import Any
from urllib.parse import urlsplit

from toolbus_common.errors import ToolbusError, UpstreamDeadError
from toolbus_executor.known_secrets import KnownSecrets
from toolbus_executor.providers.api_keys import ApiKey
from toolbus_executor.providers.endpoints.libraries import library
from toolbus_executor.transport.dialer import Dialer
from toolbus_executor.transport.http1 import BrokenError, NotSentError, Pool, TooLargeError

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
SECONDS = 10.0  # for one request to a token endpoint
LONGEST_TOKEN = 8192  # characters


class GoogleTokens:
    """Access tokens by the name of a key. An expired token is replaced before its next use.

    `accounts` are the keys of service accounts in Google's JSON form, by name. With `ambient`, the
    machine's default credentials are used instead. Each token is added to `secrets`.

    Raises:
        UpstreamDeadError: a key is invalid, or the library is missing.

    """

    def __init__(
        self,
        accounts: Mapping[str, str],
        dialer: Dialer,
        secrets: KnownSecrets,
        *,
        ambient: bool = False,
    ) -> None:
        self._dialer = dialer.to_other_hosts()
        self._secrets = secrets
        self._ambient = ambient
        self._credentials = {name: _service_account(name, key) for name, key in accounts.items()}
        self._errors = library("google.auth.exceptions", "gcp").GoogleAuthError
        self._checked: dict[str, str] = {}  # the last token, by the name of the key
        self._refreshes: dict[str, asyncio.Task[str]] = {}

    async def lines(
        self,
        key: ApiKey,
        path: str,  # noqa: ARG002
        body: bytes,  # noqa: ARG002
        listed: str = "",  # noqa: ARG002
    ) -> bytes:
        """Return the header line with the token. Raises `UpstreamDeadError`."""
        credentials: Any = self._credentials.get(key.name)
        token = self._checked.get(key.name)
        if token is None or not credentials.valid or credentials.token != token:
            token = await asyncio.shield(self._refresh_of(key.name))
        return f"authorization: Bearer {token}\r\n".encode()

    def _refresh_of(self, name: str) -> "asyncio.Task[str]":
        """Return the task that fetches a token. All requests share it, and none may cancel it."""
        task = self._refreshes.get(name)
        if task is None:
            task = self._refreshes[name] = asyncio.create_task(self._refresh(name))
            task.add_done_callback(lambda done: self._refreshed(name, done))
        return task

    def _refreshed(self, name: str, done: "asyncio.Task[str]") -> None:
        del self._refreshes[name]
        if not done.cancelled():
            done.exception()  # read here, because the requests may have ended

    async def _refresh(self, name: str) -> str:
        """Fetch a token, and check it."""
        try:
            credentials = self._credentials.get(name)
            if credentials is None:
                credentials = self._credentials[name] = await self._of_the_machine()
            await asyncio.to_thread(credentials.refresh, self._transport())
            token = _checked(credentials.token)
        except (self._errors, ToolbusError) as error:
            reason = error.reason if isinstance(error, ToolbusError) else type(error).__name__
            raise UpstreamDeadError(
                f"Google issued no access token ({reason}); check the service account and its "
                "permissions.",
                sent=False,
            ) from error
        self._secrets.renew(name, token)
        self._checked[name] = token
        return token

    async def _of_the_machine(self) -> Any:
        if not self._ambient:
            raise UpstreamDeadError("the key has no service account", sent=False)
        default = library("google.auth", "gcp").default
        credentials, _ = await asyncio.to_thread(default, scopes=SCOPES)
        return credentials

    def _transport(self) -> Any:
        """Return the transport of google-auth. It has an egress check unless `ambient` is set."""
        if self._ambient:
            return library("google.auth.transport.requests", "gcp").Request()
        return _CheckedRequest(self._dialer, asyncio.get_running_loop())


def _checked(token: object) -> str:
    """Return a token that a header line can contain. Raises `UpstreamDeadError`."""
    if (
        not isinstance(token, str)
        or not 0 < len(token) <= LONGEST_TOKEN
        or not all("!" <= char <= "~" for char in token)
    ):
        raise UpstreamDeadError(
            "the token endpoint sent a token that no header can contain", sent=False
        )
    return token


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
    """The transport of google-auth over the executor's connections. It is used in a thread.

    It sends one request: google-auth would repeat a failed one while the caller waits.
    """

    def __init__(self, dialer: Dialer, loop: asyncio.AbstractEventLoop) -> None:
        self._dialer = dialer
        self._loop = loop
        self._is_used = False

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,  # noqa: ARG002 - the limit is always `SECONDS`
        **_: Any,
    ) -> "_Response":
        if self._is_used:
            raise UpstreamDeadError("the token endpoint failed", sent=False)
        self._is_used = True
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
