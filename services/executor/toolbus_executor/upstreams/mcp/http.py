"""An upstream over HTTP, of whatever family and transport it turns out to be."""

from collections.abc import Collection
from functools import partial
from typing import Any, Literal
from typing import Protocol as Interface

import msgspec

from toolbus_common.config.servers.server import Protocol
from toolbus_common.contracts import CallAdmitted, CatalogEntry
from toolbus_common.errors import ToolbusError, UpstreamFaultError, UpstreamRefusedError
from toolbus_executor.credentials.oauth_token import Bearer
from toolbus_executor.mcp_messages.client_capabilities import EVERYTHING, Kinds, declared
from toolbus_executor.results.large.spill_registry import Spills
from toolbus_executor.transport.dialer import Way
from toolbus_executor.upstreams import gateway_chaining
from toolbus_executor.upstreams.base import Described, News, NoSuchFamilyError
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.mcp import messages
from toolbus_executor.upstreams.mcp.http_legacy import LegacyHttp
from toolbus_executor.upstreams.mcp.http_modern import ModernHttp
from toolbus_executor.upstreams.mcp.http_sse import OldHttp
from toolbus_executor.upstreams.mcp.http_transport import HttpStatusError, Transport
from toolbus_executor.upstreams.mcp_tasks.service import Tasking

Spoken = Protocol | Literal["sse"]  # the family, or HTTP+SSE of 2024-11-05
_MAYBE_OLD = (400, 404, 405)  # how a server of HTTP+SSE answers a POST to its stream


class Face(Interface):
    """One family's way of speaking to the server."""

    asks: bool

    async def list_page(self, method: str, cursor: str | None) -> dict[str, Any]:
        """One page of a list."""
        ...

    async def probe(self) -> None:
        """Ask whether the server is there, in the words of its family."""
        ...

    def learn(self, tools: Collection[CatalogEntry]) -> None:
        """Take note of the tools as listed."""
        ...

    async def call(self, call: CallAdmitted, seconds: float, caller: Caller) -> messages.Incoming:
        """Ask, and wait for the answer."""
        ...

    async def watch(self, uris: frozenset[str]) -> None:
        """Hear of changes of these resources."""
        ...

    async def follow(self, tasks: frozenset[str]) -> None:
        """Hear of these tasks."""
        ...

    async def close(self) -> None:
        """Leave."""
        ...


class HttpUpstream:
    """One server at a URL. With `protocol` it is met in that way and no other."""

    def __init__(
        self,
        url: str,
        headers: dict[str, str],
        news: News,
        way: Way,
        *,
        protocol: Spoken = "auto",
        spills: Spills | None = None,
        bearer: Bearer | None = None,
    ) -> None:
        self._same = partial(HttpUpstream, url, headers, way=way, spills=spills, bearer=bearer)
        self._declared: Kinds = EVERYTHING
        self._own: Kinds | None = None  # what can be asked in it, where it is one owner's
        self._transport = Transport(url, headers, way)
        self._transport.bearer, self._transport.spills = bearer, spills
        self._news = news
        self._protocol = protocol
        self._face: Face = ModernHttp(self._transport, news)
        self._tasking = Tasking()
        self.left_out: dict[str, str] = {}
        self._is_toolbus = False

    @property
    def asks(self) -> bool:
        """Whether the server may ask back in the middle of a call."""
        return self._face.asks

    @property
    def is_old(self) -> bool:
        """Whether it speaks HTTP+SSE of 2024-11-05, where a session is a connection."""
        return isinstance(self._face, OldHttp)

    @property
    def by_kinds(self) -> bool:
        """Whether a session says once what its callers can be asked."""
        return isinstance(self._face, LegacyHttp)

    @property
    def keeps_sessions(self) -> bool:
        """Whether the server keeps a session, and so may keep state in it."""
        return self.is_old or (isinstance(self._face, LegacyHttp) and self._face.keeps_sessions)

    def another(self, news: News, kinds: Kinds) -> "HttpUpstream":
        """Another session at this server, whose callers can all be asked these kinds."""
        if self.is_old:
            made = self._same(news=news, protocol="sse")
            made.declare(kinds)
            return made
        made = self._same(news=news)
        made.share(self._transport, kinds)
        return made

    @property
    def certain(self) -> bool:
        """Whether no call that is gone may still be at work in the server."""
        return not isinstance(self._face, OldHttp) or self._face.certain

    def declare(self, kinds: Kinds) -> None:
        """Have a handshake over HTTP+SSE declare only what its one client can be asked."""
        self._declared = kinds

    def notify(self, method: str) -> None:
        """Tell the server something of the client that the session belongs to."""
        if isinstance(self._face, OldHttp | LegacyHttp):
            self._face.notify(method)

    def share(self, transport: Transport, kinds: Kinds) -> None:
        """Be one session more over a transport, for callers that can be asked these kinds."""
        self._transport, self._own = transport, kinds

    async def open(self) -> Described:
        """Probe with server/discover, else shake hands, else look for an old stream."""
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
        except (UpstreamRefusedError, UpstreamFaultError) as error:
            if self._protocol == "legacy" and _refuses(error):
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
        """One page as a stateless server lists it to clients that declare these kinds."""
        assert isinstance(self._face, ModernHttp)  # noqa: S101 - others have sessions for that
        able = msgspec.json.encode(declared(kinds)).decode()
        return self._near(method, cursor, await self._face.list_page(method, cursor, able))

    async def list_page(self, method: str, cursor: str | None) -> dict[str, Any]:
        """One page of a list."""
        return self._near(method, cursor, await self._face.list_page(method, cursor))

    def _near(self, method: str, cursor: str | None, page: dict[str, Any]) -> dict[str, Any]:
        if not self._is_toolbus:
            return page
        page, far = gateway_chaining.near(method, page)
        self.left_out = far if method == "tools/list" and cursor is None else self.left_out | far
        return page

    def learn(self, tools: Collection[CatalogEntry]) -> None:
        """Take note of the tools as listed."""
        self._tasking.learn(tools)
        self._face.learn(tools)

    async def call(self, call: CallAdmitted, seconds: float, caller: Caller) -> bytes:
        """Ask the server; what concerns tasks has ways of its own."""
        if self._is_toolbus:
            call = gateway_chaining.onward(call)
        modern = not self.asks
        return await self._tasking.ask(call, seconds, caller, self._once, modern=modern)

    async def probe(self) -> None:
        """Ask whether the server is there; one that came back may offer other tools."""
        await self._face.probe()
        if self._transport.shaken:
            self._transport.shaken = False
            self._news.changed()

    async def watch(self, uris: frozenset[str]) -> None:
        """Hear of changes of these resources."""
        await self._face.watch(uris)

    async def follow(self, tasks: frozenset[str]) -> None:
        """Hear of these tasks."""
        await self._face.follow(tasks)

    async def wait_lost(self) -> str:
        """Wait for the end; plain HTTP has none, but a server may come back as another one."""
        return await self._transport.wait_lost()

    async def close(self) -> None:
        """Leave."""
        await self._face.close()
        if self._own is None:
            self._transport.close()

    async def _open_old(self, otherwise: Exception | None = None) -> Described:
        face = OldHttp(self._transport, self._news)
        face.declare(self._declared)
        self._face = face
        return await face.open(otherwise)

    async def _once(self, call: CallAdmitted, seconds: float, caller: Caller) -> bytes:
        message = await self._face.call(call, seconds, caller)
        if self._transport.shaken or message.error is not None:
            self._reconsider(message)
        return messages.result_of(message)

    def _reconsider(self, message: messages.Incoming) -> None:
        """After a failure of the transport another server may answer, or one with other tools."""
        transport = self._transport
        if message.error_code in messages.OTHERWISE or (
            transport.shaken and message.error is not None
        ):
            transport.lose("It answers otherwise than before, so it is asked anew what it is.")
        elif transport.shaken:
            self._news.changed()
        transport.shaken = False


def _refuses(error: ToolbusError) -> bool:
    """Whether an answer to initialize says that there is no handshake, and nothing else."""
    if isinstance(error, HttpStatusError):
        return error.status in _MAYBE_OLD
    return isinstance(error, UpstreamRefusedError)
