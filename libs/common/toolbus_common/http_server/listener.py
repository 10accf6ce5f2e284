"""HTTP listener: accepts connections, checks their time limits, and shuts down gracefully."""

import asyncio
import logging
from collections import Counter
from contextlib import suppress

from toolbus_common.http_server.acceptor import Acceptor, Handshake
from toolbus_common.http_server.exchange import App
from toolbus_common.http_server.limits import Limits, descriptors_for
from toolbus_common.http_server.protocol import HttpConnection
from toolbus_common.http_server.proxy_addresses import bounded_as
from toolbus_common.observability.metrics import (
    CONNECTIONS,
    CONNECTIONS_CLOSED,
    CONNECTIONS_LIMIT,
    CONNECTIONS_REJECTED,
)

log = logging.getLogger(__name__)

CLOCK_SECONDS = 0.5
QUIET_SECONDS = 2.0  # after its last response, a connection can send a request for this time
PLAIN = Handshake()
_UNKNOWN = "unknown"  # the peer has disconnected already
ACCEPT_TURNS = 8  # iterations of the event loop that accept all pending connections


class Listener:
    """Accepts connections on one address. `name` is the label of the listener in metrics."""

    def __init__(self, app: App, name: str, limits: Limits, handshake: Handshake = PLAIN) -> None:
        self.app = app
        self.connections: set[HttpConnection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.loop = asyncio.get_running_loop()
        self.limits = limits
        self.leaving = False  # every response announces that the connection closes
        self._announced = 0.0  # when the end was announced
        self.port = 0
        self._name = name
        self._open = CONNECTIONS.labels(name)
        self._maximum = descriptors_for(limits.connections)
        self._addresses: Counter[str] = Counter()
        self._handshake = handshake
        self._server: asyncio.Server | Acceptor | None = None
        self._clock: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    # -- connections -------------------------------------------------------------------------

    @property
    def idle_seconds(self) -> float:
        """The time in seconds for which a connection stays open after a response."""
        return QUIET_SECONDS if self.leaving else self.limits.idle_seconds

    def admit(self, connection: HttpConnection, peer: str, *, proxy: bool) -> bool:
        """Return whether to accept a connection, and count it if so.

        Connections of a proxy are not counted per address.
        """
        if len(self.connections) > self._maximum:
            return self._reject("total")
        if not proxy and not connection.address:
            connection.address = self.take(peer)
            if not connection.address:
                return False
        self._empty.clear()
        self._open.set(len(self.connections))
        return True

    def may_begin(self, handshakes: int) -> bool:
        """Return whether another handshake can begin while `handshakes` are in progress."""
        return len(self.connections) + handshakes < self._maximum or self._reject("total")

    def expect(self, connection: HttpConnection, client: str) -> bool:
        """Count a connection for its client's address before its handshake, as `admit` does."""
        if self.limits.proxies.cover(client):
            return True
        connection.address = self.take(client)
        return bool(connection.address)

    def left(self, connection: HttpConnection) -> None:
        """Remove a closed connection from the counts."""
        if connection.address:
            self.give_back(connection.address)
            connection.address = ""
        self._open.set(len(self.connections))
        if not self.connections:
            self._empty.set()

    def take(self, client: str) -> str:
        """Count a connection or request of this client's address, and return the counted address.

        Return an empty string if the limit of the address is reached.
        """
        address = bounded_as(client) or _UNKNOWN
        if self._addresses[address] >= self.limits.max_for(client):
            self._reject("address")
            return ""
        self._addresses[address] += 1
        return address

    def give_back(self, address: str) -> None:
        """Remove one connection or request of this address from the counts."""
        self._addresses[address] -= 1
        if self._addresses[address] <= 0:
            del self._addresses[address]

    def closed(self, reason: str) -> None:
        """Count a connection that the listener closed because of its client's behaviour."""
        CONNECTIONS_CLOSED.labels(self._name, reason).inc()

    def _reject(self, reason: str) -> bool:
        CONNECTIONS_REJECTED.labels(self._name, reason).inc()
        return False

    def _check_connections(self) -> None:
        self._clock = self.loop.call_later(CLOCK_SECONDS, self._check_connections)
        now = self.loop.time()
        for connection in tuple(self.connections):
            connection.check(now)

    # -- lifecycle ---------------------------------------------------------------------------

    async def open(self, host: str, port: int, backlog: int) -> None:
        """Start to accept connections. Raises `OSError`, usually because the port is in use."""
        if self._handshake:
            self._server = Acceptor(self, self._handshake)
            await self._server.open(host, port, backlog)
        else:
            self._server = await self.loop.create_server(
                lambda: HttpConnection(self), host, port, backlog=backlog
            )
        self.port = int(self._server.sockets[0].getsockname()[1])
        CONNECTIONS_LIMIT.labels(self._name).set(self._maximum)
        self._check_connections()

    def announce_end(self) -> None:
        """Close each connection after its next response. New connections are still accepted."""
        if not self.leaving:
            self.leaving, self._announced = True, self.loop.time()
            log.info("http.draining", extra={"connections": len(self.connections)})

    async def stop_accepting(self) -> None:
        """Stop accepting connections, and close those on which no request starts."""
        self.announce_end()
        if self._server is None or not self._server.is_serving():
            return
        for _ in range(ACCEPT_TURNS):
            await asyncio.sleep(0)
        self._server.close()
        until = self._announced + min(QUIET_SECONDS, self.limits.idle_seconds)
        for connection in tuple(self.connections):
            connection.close_when_quiet(until)

    async def end(self, seconds: float) -> None:
        """Wait until every connection has ended. After `seconds`, cancel running requests."""
        try:
            async with asyncio.timeout(seconds):
                await self._ended()
        except TimeoutError:
            await self._cancel_requests()
        if self._clock is not None:
            self._clock.cancel()
        if isinstance(self._server, Acceptor):
            await self._server.end()
        for connection in tuple(self.connections):
            connection.transport.abort()

    async def _ended(self) -> None:
        if isinstance(self._server, Acceptor):
            await self._server.completed()
        await self._empty.wait()
        if self.tasks:
            await asyncio.wait(tuple(self.tasks))

    async def _cancel_requests(self) -> None:
        """Cancel the running requests. The application responds to each with an error."""
        log.warning("http.requests_cancelled", extra={"requests": len(self.tasks)})
        for task in tuple(self.tasks):
            task.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(QUIET_SECONDS):
                await self._ended()
