"""Upstream for an MCP server over HTTP. The protocol family is detected on connecting."""

from collections.abc import Collection
from functools import partial
from typing import Any, Literal
from typing import Protocol as Interface

import msgspec

from toolbus_common.config.servers.server import Protocol
from toolbus_common.contracts import CallAdmitted, CatalogEntry
from toolbus_common.errors import ToolbusError, UpstreamInvalidError, UpstreamRefusedError
from toolbus_executor.credentials.oauth_token import Bearer
from toolbus_executor.mcp_messages.client_capabilities import EVERYTHING, Kinds, declared
from toolbus_executor.results.large.spill_registry import SpillRegistry
from toolbus_executor.transport.dialer import Dialer
from toolbus_executor.upstreams import gateway_chaining
from toolbus_executor.upstreams.base import Described, NoSuchFamilyError, Send, UpstreamCallbacks
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.mcp.http_legacy import LegacyHttp
from toolbus_executor.upstreams.mcp.http_modern import ModernHttp
from toolbus_executor.upstreams.mcp.http_sse import SseHttp
from toolbus_executor.upstreams.mcp.http_transport import HttpStatusError, Transport
from toolbus_executor.upstreams.mcp_tasks.service import TaskSupport

Spoken = Protocol | Literal["sse"]  # the family, or HTTP+SSE of 2024-11-05
_MAYBE_OLD = (400, 404, 405)  # statuses of an HTTP+SSE server for a POST to its stream's URL


class FamilyClient(Interface):
    """Client of one protocol family."""

    sends_requests: bool

    async def list_page(self, method: str, cursor: str | None) -> dict[str, Any]:
        """Return one page of a list."""
        ...

    async def probe(self) -> None:
        """Send the request that this protocol family uses for probes; it has no effects."""
        ...

    def learn(self, tools: Collection[CatalogEntry]) -> None:
        """Store the definitions of the listed tools."""
        ...

    async def call(self, call: CallAdmitted, seconds: float, caller: Caller) -> bytes:
        """Send a call and return its raw result."""
        ...

    async def watch(self, uris: frozenset[str]) -> None:
        """Subscribe to changes of these resources."""
        ...

    async def follow(self, tasks: frozenset[str]) -> None:
        """Subscribe to status changes of these tasks."""
        ...

    async def close(self) -> None:
        """Disconnect."""
        ...


class HttpUpstream:
    """A server at a URL. If `protocol` is set, the family is not detected."""

    def __init__(
        self,
        url: str,
        headers: dict[str, str],
        news: UpstreamCallbacks,
        way: Dialer,
        *,
        protocol: Spoken = "auto",
        spills: SpillRegistry | None = None,
        bearer: Bearer | None = None,
    ) -> None:
        self._same = partial(HttpUpstream, url, headers, way=way, spills=spills, bearer=bearer)
        self._declared: Kinds = EVERYTHING
        self._own: Kinds | None = None  # supported input requests, if the session has one owner
        self._transport = Transport(url, headers, way)
        self._transport.bearer, self._transport.spills = bearer, spills
        self._news = news
        self._protocol = protocol
        self._face: FamilyClient = ModernHttp(self._transport, news)
        self._tasking = TaskSupport()
        self.left_out: dict[str, str] = {}
        self._is_toolbus = False

    @property
    def sends_requests(self) -> bool:
        """Whether the server may send requests to a client during a call."""
        return self._face.sends_requests

    @property
    def is_old(self) -> bool:
        """Whether the server uses HTTP+SSE of 2024-11-05, where each session is a connection."""
        return isinstance(self._face, SseHttp)

    @property
    def by_kinds(self) -> bool:
        """Whether each session declares, once, the input requests that its callers support."""
        return isinstance(self._face, LegacyHttp)

    @property
    def keeps_sessions(self) -> bool:
        """Whether the server has sessions, in which it can store state."""
        return self.is_old or (isinstance(self._face, LegacyHttp) and self._face.keeps_sessions)

    def another(self, news: UpstreamCallbacks, kinds: Kinds) -> "HttpUpstream":
        """Return another session with this server, for callers that support these requests."""
        if self.is_old:
            made = self._same(news=news, protocol="sse")
            made.declare(kinds)
            return made
        made = self._same(news=news)
        made.share(self._transport, kinds)
        return made

    @property
    def certain(self) -> bool:
        """Whether all earlier calls have certainly ended in the server."""
        return not isinstance(self._face, SseHttp) or self._face.certain

    def declare(self, kinds: Kinds) -> None:
        """Set the capabilities that a handshake over HTTP+SSE declares."""
        self._declared = kinds

    def notify(self, method: str) -> None:
        """Send the server a notification about a change at the client that owns the session."""
        if isinstance(self._face, SseHttp | LegacyHttp):
            self._face.notify(method)

    def share(self, transport: Transport, kinds: Kinds) -> None:
        """Use the transport of another session, for callers that support these input requests."""
        self._transport, self._own = transport, kinds

    async def open(self) -> Described:
        """Detect the protocol family and connect.

        `server/discover` is tried first, then the handshake, then an HTTP+SSE stream.
        """
        described = await self._open()
        self._is_toolbus = described.is_toolbus
        return described

    async def _open(self) -> Described:
        if self._protocol == "sse":
            return await self._open_old()
        if self._own is not None:
            legacy = LegacyHttp(self._transport, self._news, self._own)
            self._face = legacy
            return await legacy.open()
        if self._protocol != "legacy":
            modern = ModernHttp(self._transport, self._news)
            self._face = modern
            described = await modern.discover()
            if described is not None:
                return described
            if self._protocol == "modern":
                raise NoSuchFamilyError.modern()
        try:
            return await self._shake_hands()
        except (UpstreamRefusedError, UpstreamInvalidError) as error:
            if self._protocol == "legacy" and _is_handshake_rejection(error):
                raise NoSuchFamilyError.legacy() from error
            raise

    async def _shake_hands(self) -> Described:
        legacy = LegacyHttp(self._transport, self._news)
        try:
            described = await legacy.open()
        except HttpStatusError as error:
            if error.status not in _MAYBE_OLD:
                raise
            return await self._open_old(error)
        self._face = legacy
        return described

    async def list_as(self, kinds: Kinds, method: str, cursor: str | None) -> dict[str, Any]:
        """Return one page of a list of a stateless server, for clients with these capabilities."""
        assert isinstance(self._face, ModernHttp)  # noqa: S101 - other families use a session for this
        able = msgspec.json.encode(declared(kinds)).decode()
        return self._without_far_names(
            method, cursor, await self._face.list_page(method, cursor, able)
        )

    async def list_page(self, method: str, cursor: str | None) -> dict[str, Any]:
        """Return one page of a list."""
        return self._without_far_names(method, cursor, await self._face.list_page(method, cursor))

    def _without_far_names(
        self, method: str, cursor: str | None, page: dict[str, Any]
    ) -> dict[str, Any]:
        if not self._is_toolbus:
            return page
        page, far = gateway_chaining.near(method, page)
        self.left_out = far if method == "tools/list" and cursor is None else self.left_out | far
        return page

    def learn(self, tools: Collection[CatalogEntry]) -> None:
        """Store the definitions of the listed tools."""
        self._tasking.learn(tools)
        self._face.learn(tools)

    async def call(self, call: CallAdmitted, seconds: float, caller: Caller) -> bytes:
        """Send a call and return its result.

        Calls about tasks are converted between the families.
        """
        if self._is_toolbus:
            call = gateway_chaining.onward(call)
        modern = not self.sends_requests
        return await self._tasking.request(call, seconds, caller, self._face.call, modern=modern)

    def plain_sender(self, tool: str) -> Send | None:
        """Return the function that sends plain calls of a tool, if the server is stateless."""
        if self._is_toolbus or self._tasking.requires(tool):
            return None
        return self._face.call if isinstance(self._face, ModernHttp) else None

    async def probe(self) -> None:
        """Check that the server responds. After an outage, list the server again."""
        await self._face.probe()
        if self._transport.failed_since_response:
            self._transport.failed_since_response = False
            self._news.on_lists_changed()

    async def watch(self, uris: frozenset[str]) -> None:
        """Subscribe to changes of these resources."""
        await self._face.watch(uris)

    async def follow(self, tasks: frozenset[str]) -> None:
        """Subscribe to status changes of these tasks."""
        await self._face.follow(tasks)

    async def wait_lost(self) -> str:
        """Wait until the server must be reconnected, and return the reason."""
        return await self._transport.wait_lost()

    async def close(self) -> None:
        """Disconnect."""
        await self._face.close()
        if self._own is None:
            self._transport.close()

    async def _open_old(self, otherwise: Exception | None = None) -> Described:
        face = SseHttp(self._transport, self._news)
        face.declare(self._declared)
        self._face = face
        return await face.open(otherwise)


def _is_handshake_rejection(error: ToolbusError) -> bool:
    """Return whether an error of `initialize` means that the server has no handshake."""
    if isinstance(error, HttpStatusError):
        return error.status in _MAYBE_OLD
    return isinstance(error, UpstreamRefusedError)
