"""Session-based server over HTTP: one session for each set of client capabilities."""

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
from toolbus_executor.upstreams.base import Described, UpstreamCallbacks
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.mcp import messages
from toolbus_executor.upstreams.mcp.http_session import HttpSession
from toolbus_executor.upstreams.mcp.http_transport import Transport
from toolbus_executor.upstreams.subscriptions import refuse_unless_following

MAX_SESSIONS = 8


class LegacyHttp:
    """Sessions with one server: a main session, and one for each further set of capabilities.

    The main session lists and receives notifications. The handshake determines which requests a
    server may send, so all callers of a session have the same capabilities. A server without
    session ids cannot distinguish sessions, so it has only the main session.
    """

    sends_requests = True

    def __init__(
        self, transport: Transport, news: UpstreamCallbacks, own: Kinds | None = None
    ) -> None:
        """Create the sessions.

        If `own` is set, there is only one session, whose callers all support these kinds.
        """
        self._transport = transport
        self._news = news
        self._without_changes = replace(news, on_lists_changed=_ignore)
        self._kinds = EVERYTHING if own is None else own
        listens = own is None or bool(own)
        lists = own is None
        self._main = HttpSession(transport, news, self._kinds, listens=listens, lists=lists)
        self._sessions: OrderedDict[Kinds, HttpSession] = OrderedDict()
        self._opening = asyncio.Lock()

    @property
    def keeps_sessions(self) -> bool:
        """Whether the server issues session ids. Without them it cannot distinguish callers."""
        return bool(self._main.id)

    async def open(self) -> Described:
        """Open the main session."""
        return await self._main.open()

    async def list_page(self, method: str, cursor: str | None) -> dict[str, Any]:
        """Return one page of a list."""
        message = await self._main.request(method, {} if cursor is None else {"cursor": cursor})
        result: dict[str, Any] = msgspec.json.decode(messages.result_of(message))
        return result

    async def probe(self) -> None:
        """Send a request without effects. It also renews a session that the server dropped."""
        await self._main.request("ping", {})

    def notify(self, method: str) -> None:
        """Notify the server of a change at the client that owns the main session."""
        self._main.notify(method)

    def learn(self, tools: Collection[CatalogEntry]) -> None:
        """Do nothing, because requests to session-based servers do not depend on definitions."""

    async def call(self, call: CallAdmitted, seconds: float, caller: Caller) -> bytes:
        """Send a call in the session for the caller's capabilities; return its raw result."""
        kinds = kinds_of(call.capabilities)
        session = self._sessions.get(kinds)
        if session is None:
            began = monotonic()
            async with asyncio.timeout(seconds):
                session = await self._session_for(kinds)
            seconds -= monotonic() - began
        message = await session.call(call, seconds, caller)
        return self._transport.result_of(message, self._news)

    async def watch(self, uris: frozenset[str]) -> None:
        """Subscribe in the main session."""
        await self._main.watch(uris)

    async def follow(self, tasks: frozenset[str]) -> None:
        """Reject subscriptions to tasks, because session-based servers do not have them."""
        if tasks:
            refuse_unless_following(self._main.described)

    async def close(self) -> None:
        """Close every session."""
        sessions = [self._main, *self._sessions.values()]
        await asyncio.gather(*(session.close() for session in sessions))

    async def _session_for(self, kinds: Kinds) -> HttpSession:
        if kinds == self._kinds or not self._main.id:
            return self._main
        async with self._opening:
            if kinds in self._sessions:
                return self._sessions[kinds]
            # The session's stream contains only requests outside of responses. All other messages
            # are on the stream of the main session.
            session = HttpSession(
                self._transport, self._without_changes, kinds, listens=bool(kinds), lists=False
            )
            try:
                await session.open()
            except ToolbusError as error:
                error.data["sent"] = False  # nothing of the call was sent
                raise
            idle = [each for each, other in self._sessions.items() if not other.busy]
            if len(self._sessions) >= MAX_SESSIONS and idle:
                await self._sessions.pop(idle[0]).close()
            self._sessions[kinds] = session
            return session


def _ignore() -> None:
    """Ignore a changed list, because the main session reports it."""
