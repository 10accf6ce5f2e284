"""A NATS client that moves to another server while the old one still serves it.

A reconnection of the client library closes the old connection first: messages that the server has
already sent are lost, and so are messages that others send before the subscriptions exist again. A
move connects first, subscribes on both connections, and leaves the old one when it has delivered
everything.
"""
# ruff: noqa: SLF001 - the client library has no public access to its connection

import asyncio
from collections import Counter
from contextlib import suppress
from typing import Any

from nats.aio.client import Client
from nats.protocol import command
from nats.protocol.parser import Parser

# Time in which all servers of the cluster learn of the new subscriptions.
OVERLAP_SECONDS = 0.5
_PING = b"PING\r\n"
_BUFFER = 1 << 16

Copy = tuple[int, bytes, bytes, bytes]


class MovableClient(Client):
    """A client with the connection that it is leaving, if any."""

    _left: "_LeftConnection | None" = None

    async def move(self, other: Client, patience: float) -> bool:
        """Continue on the connection of `other`, which must not be used afterwards.

        If the old server does not send its last messages within `patience`, the callbacks for a
        lost and for a restored connection are called. Return whether this client has moved; a
        client that is not connected does not move.
        """
        await _stopped(other)
        if not self.is_connected or self._left is not None:
            await _closed(other._transport)
            return False
        await _stopped(self)
        left = self._left = _LeftConnection(self)
        self._transport, self._ps = other._transport, Parser(self)
        self._server_info, self._client_id = other._server_info, other._client_id
        current: Any = other._current_server
        self._current_server = current
        if current is not None:  # a reconnection tries the server that was lost last
            self._server_pool.sort(key=lambda each: each.uri.netloc == current.uri.netloc)
        self._pongs, self._pings_outstanding = [], 0
        reading = asyncio.ensure_future(left.read())
        try:
            self._subscribe_again(other)
            self._reading_task = asyncio.ensure_future(self._read_loop())
            self._ping_interval_task = asyncio.ensure_future(self._ping_interval())
            self._flusher_task = asyncio.ensure_future(self._flusher())
            await self._flush_pending()
            await self.flush()
            await asyncio.sleep(OVERLAP_SECONDS)
            left.unsubscribe(self._subs)
            await asyncio.wait({reading}, timeout=patience)
        finally:
            reading.cancel()
            await _closed(left.transport)
            self._left = None
        if not left.is_complete:
            for callback in (self._disconnected_cb, self._reconnected_cb):
                if callback is not None:
                    await callback()
        return True

    def _subscribe_again(self, other: Client) -> None:
        transport: Any = self._transport
        for sid in other._subs:  # the server ignores a subscription with an id that exists
            transport.write(command.unsub_cmd(sid, 0))
        for sid, each in self._subs.items():
            transport.write(command.sub_cmd(each._subject, each._queue, sid))
            if each._max_msgs > 0:
                transport.write(command.unsub_cmd(sid, each._max_msgs - each._received))

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        """Process a message of the new connection unless the old one has delivered it."""
        left = self._left
        if left is None or left.is_first((sid, subject, reply, data), left.new, left.old):
            await super()._process_msg(sid, subject, reply, data, headers)


class _LeftConnection:
    """The old connection, to which the parser passes everything that the server sends.

    While both connections are subscribed, each delivers a copy of a message. Messages to a queue
    group are delivered once.
    """

    def __init__(self, client: MovableClient) -> None:
        self._client = client
        self._parser: Any = client._ps
        self._parser.nc = self
        self._pongs, self._ends = client._pongs, False
        self.transport: Any = client._transport
        self.old: Counter[Copy] = Counter()
        self.new: Counter[Copy] = Counter()

    @property
    def is_complete(self) -> bool:
        """Whether the server has answered the last ping."""
        return self._ends and not self._pongs

    async def read(self) -> None:
        """Pass on what the server sends until it has answered the last ping."""
        with suppress(OSError):
            while not self.is_complete and not self.transport.at_eof():
                await self._parser.parse(await self.transport.read(_BUFFER))

    def unsubscribe(self, sids: Any) -> None:
        """End the subscriptions; the reply to a ping follows the last message."""
        for sid in sids:
            self.transport.write(command.unsub_cmd(sid, 0))
        self._pongs.append(asyncio.get_running_loop().create_future())
        self.transport.write(_PING)
        self._ends = True

    def is_first(self, copy: Copy, own: Counter[Copy], others: Counter[Copy]) -> bool:
        """Return whether this connection delivers a message before the other one does."""
        subscription = self._client._subs.get(copy[0])
        if subscription is None or subscription._queue:
            return True
        own[copy] += 1
        return own[copy] > others[copy]

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        if self.is_first((sid, subject, reply, data), self.old, self.new):
            await Client._process_msg(self._client, sid, subject, reply, data, headers)

    async def _process_pong(self) -> None:
        if self._pongs:
            answered = self._pongs.pop(0)
            if not answered.done():
                answered.set_result(True)

    async def _process_ping(self) -> None:
        self.transport.write(b"PONG\r\n")

    async def _process_info(self, info: dict[str, Any]) -> None:
        """Ignore the state of a server that is left."""

    async def _process_err(self, message: str) -> None:
        """Ignore errors: after an error, the connection ends or continues as before."""


async def _stopped(client: Client) -> None:
    """End the tasks of a client. Each of them waits, so no message that it has read is lost."""
    tasks = (client._reading_task, client._ping_interval_task, client._flusher_task)
    running = [each for each in tasks if each is not None]
    for each in running:
        each.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def _closed(transport: Any) -> None:
    if transport is not None:
        transport.close()
        with suppress(OSError):
            await transport.wait_closed()
