"""HTTP client of one provider: its requests over the executor's connections."""

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

from toolbus_common.config import Provider
from toolbus_common.errors import UpstreamDeadError, UpstreamInvalidError
from toolbus_executor.known_secrets import KnownSecrets
from toolbus_executor.mcp_messages.request_builder import CLIENT
from toolbus_executor.providers.api_keys import ApiKey, ApiKeys
from toolbus_executor.providers.endpoints.authorization import Authorization
from toolbus_executor.providers.endpoints.paths import list_urls_of, path_of, probe_path_of
from toolbus_executor.providers.streamed_response import StreamedResponse
from toolbus_executor.resilience.health_probe import PROBE_SECONDS
from toolbus_executor.transport.dialer import Dialer
from toolbus_executor.transport.http1 import (
    BrokenError,
    Connection,
    Head,
    NotSentError,
    Pool,
    TooLargeError,
)

ANTHROPIC_VERSION = "2023-06-01"
OK, REDIRECTION, ERROR, SERVER_ERROR = 200, 300, 400, 500


class _ProviderConnection(Connection):
    """A connection that reads the body of an error completely, even if it is an event stream."""

    def on_headers_complete(self) -> None:
        if self._parser.get_status_code() >= REDIRECTION:
            self._on_stream = None  # an error is no stream, and has no usage
        super().on_headers_complete()


class ProviderClient:
    """Client of one provider, with the values of its secrets. It adds an API key to each request.

    `keys` are the API keys, and `secrets` are all values that must not reach a caller.
    `authorization` is set if the header lines of a key differ between requests.

    Raises:
        UpstreamDeadError: a configured header cannot be sent.

    """

    def __init__(
        self,
        provider: Provider,
        headers: dict[str, str],
        keys: ApiKeys,
        secrets: KnownSecrets,
        dialer: Dialer,
        authorization: Authorization | None = None,
    ) -> None:
        self.keys = keys
        self.secrets = secrets
        target = urlsplit(provider.base_url)
        host = target.netloc.rpartition("@")[2]
        own = {"content-type": "application/json", "user-agent": f"toolbus/{CLIENT['version']}"}
        if provider.kind == "anthropic":
            own["anthropic-version"] = ANTHROPIC_VERSION
        configured = {name.lower(): _one_line(name, value) for name, value in headers.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in (own | configured).items())
        self._lines = lines
        self._common = self._head(host)
        self.path_of = path_of(provider)
        self._authorization = authorization
        self._probe = f"GET {probe_path_of(provider)}".encode() + self._common
        self.lists = list_urls_of(provider)
        self._dialer = dialer
        self._host = host
        self._pool = Pool(provider.base_url, dialer, _ProviderConnection)

    async def send(  # noqa: PLR0913, PLR0917 - one request, on the call path
        self,
        path: str,
        key: ApiKey,
        traceparent: str,
        body: bytes,
        stream: StreamedResponse | None,
        seconds: float,
        beta: bytes = b"",
        on_written: Callable[[], None] = lambda: None,
    ) -> tuple[Head, bytes]:
        """Send a request, and return the response. `stream` receives the body of an event stream.

        `path` is one of `path_of`. `beta` is the value of `anthropic-beta`; empty for none.
        `on_written` is called when the request is written to a connection.

        Raises:
            UpstreamDeadError: the provider cannot be reached, or the connection broke.
            UpstreamInvalidError: the response is too large, or redirects.
            TimeoutError: the time limit passed. Parts of a stream extend it.

        """
        line = key.line
        if self._authorization is not None:
            line = await self._authorized(self._authorization, key, path, body, seconds)
        betas = b"anthropic-beta: %b\r\n" % beta if beta else b""
        request = b"POST %b%b%b%btraceparent: %b\r\ncontent-length: %d\r\n\r\n%b" % (
            path.encode(), self._common, line, betas, traceparent.encode(), len(body), body,
        )  # fmt: skip
        head, raw = await self._exchange(request, stream, seconds, on_written)
        if REDIRECTION <= head.status < ERROR:
            raise UpstreamInvalidError(
                "The upstream redirects requests. Configure its current URL as the provider's "
                "'url'."
            )
        return head, raw

    async def _authorized(
        self, authorization: Authorization, key: ApiKey, path: str, body: bytes, seconds: float
    ) -> bytes:
        try:
            async with asyncio.timeout(seconds):
                return await authorization.lines(key, path, body)
        except TimeoutError as error:
            raise UpstreamDeadError(
                "The credentials could not be obtained before the deadline; retry later.",
                sent=False,
            ) from error

    async def probe(self) -> None:
        """Request the list of models, or `/`. Any status below 500 means that it is available.

        Raises:
            UpstreamDeadError: the provider is unavailable.
            TimeoutError: it did not respond in time.

        """
        head, _ = await self._get(self._probe)
        if head.status >= SERVER_ERROR:
            raise UpstreamDeadError(
                f"The upstream responded to a probe with HTTP {head.status}; check its log."
            )

    async def model_list(self, url: str) -> bytes:
        """Return the body of one page of a list of models.

        Raises:
            UpstreamDeadError: the provider is unavailable, or refuses the list.
            UpstreamInvalidError: the response is too large.
            TimeoutError: it did not respond in time.

        """
        _, _, rest = url.partition("://")
        host, _, path = rest.partition("/")
        own = host == self._host
        begin = f"GET /{path}".encode() + (self._common if own else self._head(host))
        pool = self._pool if own else Pool(url, self._dialer.to_other_hosts(), _ProviderConnection)
        try:
            head, body = await self._get(begin, url, pool)
        finally:
            if not own:
                pool.close()
        if head.status != OK:
            raise UpstreamDeadError(
                f"The upstream responded to a request for its models with HTTP {head.status}; "
                "check the provider's 'url' and key."
            )
        return body

    def close(self) -> None:
        """Close the idle connections. Other connections are closed when their requests end."""
        self._pool.close()

    def _head(self, host: str) -> bytes:
        """Return the start of a request, after its path."""
        return f" HTTP/1.1\r\nhost: {host}\r\n{self._lines}".encode()

    async def _get(
        self, begin: bytes, listed: str = "", pool: Pool | None = None
    ) -> tuple[Head, bytes]:
        """Send a request without a body. `begin` has all its header lines but that of a key."""
        key = self.keys.choose("", 0.0)
        line = key.line if key is not None else b""
        if listed and key is not None and self._authorization is not None:
            line = await self._authorization.lines(key, "", b"", listed)
        return await self._exchange(b"%b%b\r\n" % (begin, line), None, PROBE_SECONDS, pool=pool)

    async def _exchange(
        self,
        request: bytes,
        stream: StreamedResponse | None,
        seconds: float,
        on_written: Callable[[], None] = lambda: None,
        pool: Pool | None = None,
    ) -> tuple[Head, bytes]:
        try:
            return await (pool or self._pool).request(request, stream, seconds, stream, on_written)
        except TooLargeError as error:
            raise UpstreamInvalidError(
                f"The upstream's response is too large: {error}. Request less."
            ) from error
        except NotSentError as error:
            raise UpstreamDeadError(
                f"The upstream cannot be reached: {error}. Retry later, or check the provider's "
                "'url'.",
                sent=False,
            ) from error
        except BrokenError as error:
            raise UpstreamDeadError(
                f"The connection to the upstream failed: {error}. Retry."
            ) from error


def _one_line(name: str, value: str) -> str:
    if any(char in value for char in "\r\n\0"):
        raise UpstreamDeadError(
            f"The configured header '{name}' contains a line break; correct it.", sent=False
        )
    return value
