"""A server of 2024-11-05 over HTTP+SSE: one stream for all it says, and a URL to post to."""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import urljoin, urlsplit

import msgspec

from toolbus_common.contracts import CallAdmitted, CatalogEntry
from toolbus_common.errors import UpstreamDeadError, UpstreamFaultError
from toolbus_executor.mcp_messages.client_capabilities import Kinds
from toolbus_executor.mcp_messages.request_builder import with_body
from toolbus_executor.transport.sse_parser import EventReader
from toolbus_executor.upstreams.base import Described, News
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.mcp import messages
from toolbus_executor.upstreams.mcp.http_transport import Transport
from toolbus_executor.upstreams.mcp.multiplexer import Line
from toolbus_executor.upstreams.subscriptions import refuse_unless_following

_BEGIN_SECONDS = 5.0
_POST_SECONDS = 10.0
_OK, _REDIRECTION = 200, 300


class OldHttp:
    """One server; when its stream ends, the session has ended."""

    asks = True

    def __init__(self, transport: Transport, news: News) -> None:
        self._transport = transport
        self._endpoint: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._events = EventReader()
        self._line = Line(news, self._post_later, transport.numbers)
        self._head = b""
        self._stream: asyncio.Task[None] | None = None
        self._posting: set[asyncio.Task[None]] = set()

    @property
    def certain(self) -> bool:
        """Whether no call that is gone may still be at work in the server."""
        return self._line.board.certain

    def declare(self, kinds: Kinds) -> None:
        """Have the handshake declare only what the connection's one client can be asked."""
        self._line.kinds = kinds

    def notify(self, method: str) -> None:
        """Tell the server something of its client."""
        self._line.notify(method)

    async def open(self, otherwise: Exception | None = None) -> Described:
        """Open the stream and shake hands; `otherwise` is raised if there is no such stream."""
        self._stream = asyncio.create_task(self._hear())
        try:
            async with asyncio.timeout(_BEGIN_SECONDS):
                endpoint = await self._endpoint
        except (TimeoutError, UpstreamDeadError, UpstreamFaultError) as error:
            raise (
                otherwise
                or UpstreamDeadError("The upstream's stream names no endpoint to post to.")
            ) from error
        self._head = self._transport.post_to(self._path(endpoint))
        return await self._line.initialize()

    async def list_page(self, method: str, cursor: str | None) -> dict[str, Any]:
        """One page of a list."""
        message = await self._line.request(method, {} if cursor is None else {"cursor": cursor})
        result: dict[str, Any] = msgspec.json.decode(messages.result_of(message))
        return result

    async def probe(self) -> None:
        """Ask what asks for nothing."""
        await self._line.request("ping", {})

    def learn(self, tools: Collection[CatalogEntry]) -> None:
        """Nothing here depends on the tool."""

    async def call(self, call: CallAdmitted, seconds: float, caller: Caller) -> messages.Incoming:
        """Ask; the answer comes on the stream."""
        identity = self._transport.identity
        if identity is None:
            return await self._line.call(call, seconds, caller)
        write = partial(self._post_later, lines=identity.line(call))
        return await self._line.call(call, seconds, caller, write)

    async def watch(self, uris: frozenset[str]) -> None:
        """Subscribe to these and no others."""
        await self._line.watch(uris)

    async def follow(self, tasks: frozenset[str]) -> None:
        """Refuse: these servers tell of their tasks unasked, and without how they ended."""
        if tasks:
            refuse_unless_following(self._line.described)

    async def close(self) -> None:
        """End the stream, and the session with it."""
        for task in (self._stream, *self._posting):
            if task is not None:
                task.cancel()

    async def _hear(self) -> None:
        reason = "the upstream ended its stream"
        try:
            head, _ = await self._transport.ask(self._transport.bare(b"GET"), self._feed, None)
            if not head.is_stream:
                reason = f"the upstream answered HTTP {head.status} to a GET"
        except (UpstreamDeadError, UpstreamFaultError) as error:
            reason = error.reason
        except TimeoutError:
            reason = "the upstream did not answer in time"
        finally:
            self._line.board.fail(lambda: UpstreamDeadError(f"No answer will come: {reason}."))
            self._transport.lose(f"Its stream ended: {reason}.")
            if not self._endpoint.done():
                self._endpoint.set_exception(UpstreamDeadError(reason))
                self._endpoint.exception()  # somebody looks at it, or nobody need

    def _feed(self, piece: bytes) -> bool:
        for data in self._events.feed(piece):
            if self._events.name != "endpoint":
                with suppress(UpstreamFaultError):  # what is no message answers nothing
                    self._line.board.take(messages.read(data))
            elif not self._endpoint.done():
                self._endpoint.set_result(data.decode("utf-8", "replace"))
        return False

    def _path(self, endpoint: str) -> bytes:
        """The path to post to, which must be the same server's."""
        found, own = urlsplit(urljoin(self._transport.url, endpoint)), urlsplit(self._transport.url)
        if (found.scheme, found.netloc) != (own.scheme, own.netloc) or not found.path.isascii():
            raise UpstreamFaultError("The upstream's stream names an endpoint of another server.")
        return (f"{found.path}?{found.query}" if found.query else found.path).encode()

    def _post_later(self, body: bytes, lines: bytes = b"") -> None:
        task = asyncio.ensure_future(self._post(body, lines))
        self._posting.add(task)
        task.add_done_callback(self._posting.discard)

    async def _post(self, body: bytes, lines: bytes) -> None:
        try:
            request = with_body(self._head + lines, body)
            head, _ = await self._transport.ask(request, None, _POST_SECONDS)
        except (UpstreamDeadError, UpstreamFaultError, TimeoutError) as error:
            self._transport.lose(f"It cannot be written to: {error}.")
            self._line.board.fail(lambda: UpstreamDeadError("The upstream cannot be written to."))
            return
        if not _OK <= head.status < _REDIRECTION:
            self._transport.lose(f"It answered HTTP {head.status} to a message.")
            self._line.board.fail(
                lambda: UpstreamDeadError(f"The upstream answered HTTP {head.status}.")
            )
