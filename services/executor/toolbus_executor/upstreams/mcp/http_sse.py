"""Server of 2024-11-05 over HTTP+SSE: one stream for all its messages, and a URL for POSTs."""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import urljoin, urlsplit

import msgspec

from toolbus_common.concurrency import Tasks
from toolbus_common.contracts import CallAdmitted, CatalogEntry
from toolbus_common.errors import UpstreamDeadError, UpstreamInvalidError
from toolbus_executor.mcp_messages.client_capabilities import Kinds
from toolbus_executor.mcp_messages.request_builder import with_body
from toolbus_executor.transport.sse_parser import EventReader
from toolbus_executor.upstreams.base import Described, UpstreamCallbacks
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.mcp import messages
from toolbus_executor.upstreams.mcp.http_transport import Transport
from toolbus_executor.upstreams.mcp.multiplexer import MultiplexedConnection
from toolbus_executor.upstreams.subscriptions import refuse_unless_following

_BEGIN_SECONDS = 5.0
_POST_SECONDS = 10.0
_OK, _REDIRECTION = 200, 300


class SseHttp:
    """A server over HTTP+SSE. The end of its stream is the end of the session."""

    sends_requests = True

    def __init__(self, transport: Transport, news: UpstreamCallbacks) -> None:
        self._transport = transport
        self._news = news
        self._endpoint: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._events = EventReader()
        self._connection = MultiplexedConnection(news, self._post_later, transport.numbers)
        self._head = b""
        self._stream: asyncio.Task[None] | None = None
        self._posting = Tasks()

    @property
    def certain(self) -> bool:
        """Whether all earlier calls have certainly ended in the server."""
        return self._connection.dispatcher.certain

    def declare(self, kinds: Kinds) -> None:
        """Set the capabilities that the handshake declares.

        The connection must have one client only.
        """
        self._connection.kinds = kinds

    def notify(self, method: str) -> None:
        """Send the server a notification about a change at its client."""
        self._connection.notify(method)

    async def open(self, otherwise: Exception | None = None) -> Described:
        """Open the stream and perform the handshake.

        If the stream cannot be opened, `otherwise` is raised if it is set.
        """
        self._stream = asyncio.create_task(self._receive())
        try:
            async with asyncio.timeout(_BEGIN_SECONDS):
                endpoint = await self._endpoint
        except (TimeoutError, UpstreamDeadError, UpstreamInvalidError) as error:
            raise (
                otherwise
                or UpstreamDeadError(
                    "The upstream's stream has no 'endpoint' event with the URL for POST "
                    "requests; fix the server."
                )
            ) from error
        self._head = self._transport.post_to(self._path(endpoint))
        return await self._connection.initialize()

    async def list_page(self, method: str, cursor: str | None) -> dict[str, Any]:
        """Return one page of a list."""
        message = await self._connection.request(
            method, {} if cursor is None else {"cursor": cursor}
        )
        result: dict[str, Any] = msgspec.json.decode(messages.result_of(message))
        return result

    async def probe(self) -> None:
        """Send a request without effects."""
        await self._connection.request("ping", {})

    def learn(self, tools: Collection[CatalogEntry]) -> None:
        """Do nothing, because requests to session-based servers do not depend on definitions."""

    async def call(self, call: CallAdmitted, seconds: float, caller: Caller) -> bytes:
        """Send a call; its result arrives on the stream and is returned raw."""
        identity = self._transport.identity
        lines = None if identity is None else identity.line(call)
        write = None if lines is None else partial(self._post_later, lines=lines)
        message = await self._connection.call(call, seconds, caller, write)
        return self._transport.result_of(message, self._news)

    async def watch(self, uris: frozenset[str]) -> None:
        """Subscribe to exactly these resources."""
        await self._connection.watch(uris)

    async def follow(self, tasks: frozenset[str]) -> None:
        """Reject subscriptions to tasks, because session-based servers do not have them."""
        if tasks:
            refuse_unless_following(self._connection.described)

    async def close(self) -> None:
        """Close the stream, which ends the session."""
        if self._stream is not None:
            self._stream.cancel()
        await self._posting.end()

    async def _receive(self) -> None:
        reason = "the upstream ended its stream"
        try:
            head, _ = await self._transport.request(self._transport.bare(b"GET"), self._feed, None)
            if not head.is_stream:
                reason = f"the upstream returned HTTP {head.status} to a GET"
        except (UpstreamDeadError, UpstreamInvalidError) as error:
            reason = error.reason
        except TimeoutError:
            reason = "the upstream did not respond in time"
        finally:
            self._connection.dispatcher.fail(
                lambda: UpstreamDeadError(
                    f"The upstream's stream ended before its response: {reason}; check its log."
                )
            )
            self._transport.lose(f"Its stream ended: {reason}.")
            if not self._endpoint.done():
                self._endpoint.set_exception(UpstreamDeadError(reason))
                self._endpoint.exception()  # marks the error as retrieved

    def _feed(self, piece: bytes) -> bool:
        for data in self._events.feed(piece):
            if self._events.name != "endpoint":
                with suppress(UpstreamInvalidError):  # text that is not a message is ignored
                    self._connection.dispatcher.take(messages.read(data))
            elif not self._endpoint.done():
                self._endpoint.set_result(data.decode("utf-8", "replace"))
        return False

    def _path(self, endpoint: str) -> bytes:
        """Return the path for POST requests. Raises `UpstreamInvalidError` for another origin."""
        found, own = urlsplit(urljoin(self._transport.url, endpoint)), urlsplit(self._transport.url)
        if (found.scheme, found.netloc) != (own.scheme, own.netloc) or not found.path.isascii():
            raise UpstreamInvalidError(
                "The endpoint in the upstream's stream is on another origin, so it is not used; "
                "fix the server."
            )
        return (f"{found.path}?{found.query}" if found.query else found.path).encode()

    def _post_later(self, body: bytes, lines: bytes = b"") -> None:
        self._posting.start(self._post(body, lines))

    async def _post(self, body: bytes, lines: bytes) -> None:
        try:
            request = with_body(self._head + lines, body)
            head, _ = await self._transport.request(request, None, _POST_SECONDS)
        except (UpstreamDeadError, UpstreamInvalidError, TimeoutError) as error:
            self._transport.lose(f"A message could not be sent: {error}.")
            self._connection.dispatcher.fail(
                lambda: UpstreamDeadError(
                    "The message could not be sent to the upstream; check its log."
                )
            )
            return
        if not _OK <= head.status < _REDIRECTION:
            self._transport.lose(f"It returned HTTP {head.status} to a message.")
            self._connection.dispatcher.fail(
                lambda: UpstreamDeadError(
                    f"The upstream returned HTTP {head.status}; check its log."
                )
            )
