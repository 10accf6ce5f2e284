"""HTTP client of one service: its requests over the executor's connections."""

import asyncio
from collections.abc import Mapping
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import msgspec

from toolbus_common.errors import UpstreamDeadError, UpstreamInvalidError
from toolbus_executor.guard_services.adapters.base import decoded
from toolbus_executor.mcp_messages.request_builder import CLIENT
from toolbus_executor.providers.api_keys import ApiKey
from toolbus_executor.providers.endpoints.authorization import Authorization
from toolbus_executor.transport.dialer import Dialer
from toolbus_executor.transport.http1 import (
    BrokenError,
    Head,
    NotSentError,
    Pool,
    TooLargeError,
)

REDIRECTION, ERROR = 300, 400
# Statuses that open the circuit breaker. The content of one request can cause all other errors.
UNAVAILABLE = frozenset({429, 502, 503, 504, 529})
_KEY_REJECTED = frozenset({401, 403})
_NO_ADDRESS = frozenset({404, 405})
_ATTEMPTS = 2  # a check has no effects, so it can be repeated after a broken connection
_MACHINE = ApiKey("key", b"")


class ServiceClient:
    """Client of one service. It sends the configured header lines with each request.

    `authorization` is set if some header lines are computed for each request.

    Raises:
        UpstreamDeadError: a header line contains a line break.

    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        dialer: Dialer,
        authorization: Authorization | None = None,
    ) -> None:
        target = urlsplit(url)
        self.path = target.path.rstrip("/")
        self.exact = f"{target.path or '/'}?{target.query}" if target.query else target.path or "/"
        own = {
            "host": target.netloc.rpartition("@")[2],
            "content-type": "application/json",
            "accept": "application/json",
            "user-agent": f"toolbus/{CLIENT['version']}",
        }
        given = {name.lower(): _one_line(name, value) for name, value in headers.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in (own | given).items())
        self._lines = lines.encode()
        self._authorization = authorization
        self._pool = Pool(url, dialer)

    async def post(self, path: str, body: Any, seconds: float) -> Any:
        """Send a JSON document and return the decoded response, a JSON object.

        Raises:
            UpstreamDeadError: the service is unavailable.
            UpstreamInvalidError: it rejected the request, or its response is no JSON object.
            TimeoutError: it did not respond in time.

        """
        deadline = monotonic() + seconds
        raw = msgspec.json.encode(body)
        lines = self._lines
        if self._authorization is not None:
            async with asyncio.timeout(seconds):
                lines += await self._authorization.lines(_MACHINE, path, raw)
        request = b"POST %b HTTP/1.1\r\n%bcontent-length: %d\r\n\r\n%b" % (
            path.encode(), lines, len(raw), raw,
        )  # fmt: skip
        head, response = await self._exchange(request, deadline)
        if head.status >= REDIRECTION:
            raise _error_of(head.status)
        found = decoded(response)
        if not isinstance(found, dict):
            raise UpstreamInvalidError(
                "The response of the service is not a JSON object; check the guard's 'url'."
            )
        return found

    def close(self) -> None:
        """Close the idle connections. Other connections are closed when their requests end."""
        self._pool.close()

    async def _exchange(self, request: bytes, deadline: float) -> tuple[Head, bytes]:
        """Send a request, and once more if the connection failed before the deadline."""
        for attempt in range(_ATTEMPTS):
            seconds = deadline - monotonic()
            if seconds <= 0:
                raise TimeoutError
            try:
                return await self._pool.request(request, None, seconds)
            except TooLargeError as error:
                raise UpstreamInvalidError(
                    f"The response of the service is too large: {error}; check the guard's 'url' "
                    "and 'options'."
                ) from error
            except (NotSentError, BrokenError) as error:
                if attempt + 1 == _ATTEMPTS:
                    verb = "reached" if isinstance(error, NotSentError) else "used"
                    raise UpstreamDeadError(
                        f"The service cannot be {verb}: {error}; check the guard's 'url', or retry "
                        "later.",
                        sent=False,
                    ) from error
        raise TimeoutError  # not reached


def _error_of(status: int) -> UpstreamDeadError | UpstreamInvalidError:
    """Return the error for an HTTP status. The body of an error can contain the content."""
    if status in UNAVAILABLE:
        return UpstreamDeadError(f"The service is unavailable (HTTP {status}); retry later.")
    if status < ERROR:
        return UpstreamInvalidError(
            f"The service redirects requests (HTTP {status}); configure its current URL as the "
            "guard's 'url'."
        )
    if status in _KEY_REJECTED:
        return UpstreamInvalidError(
            f"The service rejected the credentials (HTTP {status}); correct the guard's 'key', "
            "'credentials' or 'headers', and the permissions of the key."
        )
    if status in _NO_ADDRESS:
        return UpstreamInvalidError(
            f"The service does not serve the requested URL (HTTP {status}); correct the guard's "
            "'url' and 'options'."
        )
    return UpstreamInvalidError(
        f"The service rejected the request (HTTP {status}); check the guard's 'options'."
    )


def _one_line(name: str, value: str) -> str:
    if not value.isascii() or not value.isprintable() or not name.isascii():
        raise UpstreamDeadError(
            f"The header '{name}' contains characters that no header can contain; correct the "
            "guard's 'key' or 'headers'.",
            sent=False,
        )
    return value
