"""A handshake-family server over HTTP: one session for each class of caller capabilities."""

import asyncio
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import replace
from time import monotonic
from typing import Any

import msgspec

from toolbus_common.contracts import CallAdmitted, CatalogEntry
from toolbus_common.errors import ToolbusError
from toolbus_executor.mcp_messages.client_capabilities import EVERYTHING, Kinds, kinds_of
from toolbus_executor.upstreams.base import Described, News
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.mcp import messages
from toolbus_executor.upstreams.mcp.http_session import HttpSession
from toolbus_executor.upstreams.mcp.http_transport import Transport
from toolbus_executor.upstreams.subscriptions import refuse_unless_following

MOST_SESSIONS = 8


class LegacyHttp:
    """The main session lists and listens; a caller's session declares what that caller can do.

    A server decides by the handshake what it may ask, so a session serves only callers that
    declared the same. A server without session ids cannot tell them apart: it has one.
    """

    asks = True

    def __init__(self, transport: Transport, news: News, own: Kinds | None = None) -> None:
        """`own` makes it the session of one owner, whose callers can all be asked these kinds."""
        self._transport = transport
        self._news = news
        self._quiet = replace(news, changed=_nothing)
        self._kinds = EVERYTHING if own is None else own
        listens = own is None or bool(own)
        lists = own is None
        self._main = HttpSession(transport, news, self._kinds, listens=listens, lists=lists)
        self._sessions: OrderedDict[Kinds, HttpSession] = OrderedDict()
        self._opening = asyncio.Lock()

    @property
    def keeps_sessions(self) -> bool:
        """Whether the server issues session ids; without, it cannot tell two callers apart."""
        return bool(self._main.id)

    async def open(self) -> Described:
        """Begin the main session."""
        return await self._main.open()

    async def list_page(self, method: str, cursor: str | None) -> dict[str, Any]:
        """One page of a list."""
        message = await self._main.request(method, {} if cursor is None else {"cursor": cursor})
        result: dict[str, Any] = msgspec.json.decode(messages.result_of(message))
        return result

    async def probe(self) -> None:
        """Ask what asks for nothing; a session that was forgotten is begun anew by it."""
        await self._main.request("ping", {})

    def notify(self, method: str) -> None:
        """Tell the server something of the client that the main session belongs to."""
        self._main.notify(method)

    def learn(self, tools: Collection[CatalogEntry]) -> None:
        """Nothing here depends on the tool."""

    async def call(self, call: CallAdmitted, seconds: float, caller: Caller) -> messages.Incoming:
        """Ask in the session of the caller's class."""
        kinds = kinds_of(call.capabilities)
        session = self._sessions.get(kinds)
        if session is None:
            began = monotonic()
            async with asyncio.timeout(seconds):
                session = await self._begun(kinds)
            seconds -= monotonic() - began
        return await session.call(call, seconds, caller)

    async def watch(self, uris: frozenset[str]) -> None:
        """Subscribe in the main session."""
        await self._main.watch(uris)

    async def follow(self, tasks: frozenset[str]) -> None:
        """Refuse: these servers tell of their tasks unasked, and without how they ended."""
        if tasks:
            refuse_unless_following(self._main.described)

    async def close(self) -> None:
        """End every session."""
        sessions = [self._main, *self._sessions.values()]
        await asyncio.gather(*(session.close() for session in sessions))

    async def _begun(self, kinds: Kinds) -> HttpSession:
        if kinds == self._kinds or not self._main.id:
            return self._main
        async with self._opening:
            if kinds in self._sessions:
                return self._sessions[kinds]
            # Its own stream is for questions asked beside an answer; the main one has the rest.
            session = HttpSession(
                self._transport, self._quiet, kinds, listens=bool(kinds), lists=False
            )
            try:
                await session.open()
            except ToolbusError as error:
                error.data["sent"] = False  # nothing of the call itself
                raise
            await self._make_room()
            self._sessions[kinds] = session
            return session

    async def _make_room(self) -> None:
        idle = [kinds for kinds, session in self._sessions.items() if not session.busy]
        if len(self._sessions) >= MOST_SESSIONS and idle:
            await self._sessions.pop(idle[0]).close()


def _nothing() -> None:
    """Only the main session tells of changed lists."""
