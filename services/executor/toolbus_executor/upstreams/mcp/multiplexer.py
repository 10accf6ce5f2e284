"""Connection with concurrent requests, which are numbered, awaited and cancelled."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from toolbus_common.contracts import NOTHING, CallAdmitted
from toolbus_common.errors import ToolbusError
from toolbus_executor.mcp_messages.client_capabilities import EVERYTHING, declared
from toolbus_executor.mcp_messages.log_levels import NO_LEVEL, rank_of
from toolbus_executor.mcp_messages.request_builder import (
    call_body,
    initialize_body,
    notification_body,
    request_body,
)
from toolbus_executor.upstreams.base import Described, UpstreamCallbacks
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.deadline_extension import Limit
from toolbus_executor.upstreams.mcp import messages
from toolbus_executor.upstreams.mcp.dispatcher import MessageDispatcher

REQUEST_SECONDS = 20.0
Write = Callable[[bytes], None]


class MultiplexedConnection:
    """The requests of one connection. `write` sends a body, immediately or in the background."""

    def __init__(self, news: UpstreamCallbacks, write: Write, numbers: Iterator[int]) -> None:
        self.dispatcher = MessageDispatcher(news, write)
        self.modern = False
        self.described = Described("legacy", "")
        self.kinds = EVERYTHING  # kinds of input requests that the handshake declares
        self._write = write
        self._numbers = numbers
        self._level = NO_LEVEL
        self._watched: frozenset[str] = frozenset()

    async def initialize(self) -> Described:
        """Perform the handshake. It declares `kinds`, by default all kinds of input requests."""
        self.modern, self.dispatcher.may_ask = False, True
        number = next(self._numbers)
        body = initialize_body(number, declared(self.kinds))
        self.described = messages.greeted(await self._send(number, body, REQUEST_SECONDS))
        self._write(notification_body("notifications/initialized"))
        return self.described

    async def request(
        self,
        method: str,
        params: dict[str, Any],
        seconds: float = REQUEST_SECONDS,
        capabilities: str = NOTHING,
    ) -> messages.Incoming:
        """Send a request of Toolbus itself and return the response."""
        number = next(self._numbers)
        body = request_body(number, method, params, modern=self.modern, capabilities=capabilities)
        return await self._send(number, body, seconds)

    async def call(
        self, call: CallAdmitted, seconds: float, caller: Caller, write: Write | None = None
    ) -> messages.Incoming:
        """Send a call and return the response. A cancellation is sent to the server.

        `write` replaces the connection's function for this call.
        """
        if call.log_level and not self.modern:
            await self._raise_level(call.log_level)
        number = next(self._numbers)
        with self.dispatcher.call(number, caller):
            try:
                body = call_body(call, number, modern=self.modern)
                return await self._send(number, body, seconds, write, caller)
            except (TimeoutError, asyncio.CancelledError):
                self.cancel(number)
                raise

    def notify(self, method: str) -> None:
        """Send a notification without params."""
        with suppress(ToolbusError):
            self._write(notification_body(method))

    def cancel(self, number: int) -> None:
        """Send the server a cancellation of this request."""
        with suppress(ToolbusError):
            self._write(notification_body("notifications/cancelled", {"requestId": number}))

    async def watch(self, uris: frozenset[str]) -> None:
        """Subscribe to exactly these resources."""
        for uri in sorted(uris - self._watched):
            messages.result_of(await self.request("resources/subscribe", {"uri": uri}))
            self._watched |= {uri}
        for uri in sorted(self._watched - uris):
            self._watched -= {uri}
            await self.request("resources/unsubscribe", {"uri": uri})

    async def _raise_level(self, level: str) -> None:
        """Set the server's log level to this level, if it is more verbose than before."""
        rank = rank_of(level)
        if rank < self._level and self.described.has("logging"):
            self._level, self.dispatcher.raised = rank, True
            await self.request("logging/setLevel", {"level": level})

    async def _send(
        self,
        number: int,
        body: bytes,
        seconds: float,
        write: Write | None = None,
        caller: Caller | None = None,
    ) -> messages.Incoming:
        """Send a request and wait for the response. Progress extends the time limit of a call."""
        future: asyncio.Future[messages.Incoming] = asyncio.get_running_loop().create_future()
        self.dispatcher.waiting[number] = future
        limit = Limit(future, seconds, None if caller is None else caller.left)
        try:
            (write or self._write)(body)
            return await future
        finally:
            limit.cancel()
            del self.dispatcher.waiting[number]
