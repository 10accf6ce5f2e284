"""Accepts connections that begin with a PROXY header, a TLS handshake, or both."""

import asyncio
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolbus_common.concurrency import Tasks
from toolbus_common.http_server.protocol import HttpConnection
from toolbus_common.http_server.proxy_addresses import Proxies
from toolbus_common.http_server.proxy_protocol import Client, ProxyHeaderError, client_of, missing
from toolbus_common.http_server.server_certificate import ServerCertificate

if TYPE_CHECKING:
    from toolbus_common.http_server.listener import Listener

log = logging.getLogger(__name__)

PAUSE = 1.0  # seconds before the next accept if the process has too many open files
AT_ONCE = 64  # connections accepted in one turn of the event loop
LOG_SECONDS = 10.0  # between two entries about refused connections
LARGEST_UNSENT = 64 * 1024  # bytes of a response that wait for encryption


@dataclass(frozen=True, slots=True)
class Handshake:
    """How each connection begins: with HTTP directly, unless one of these fields is set.

    With `balancers`, every connection must come from one of their networks and begin with a PROXY
    header. With `certificate`, a TLS handshake follows.
    """

    certificate: ServerCertificate | None = None
    balancers: Proxies | None = None

    def __bool__(self) -> bool:
        """Return whether connections begin with a PROXY header or a TLS handshake."""
        return self.certificate is not None or self.balancers is not None


class Acceptor:
    """The sockets of a listener, and the connections whose handshake has not ended."""

    def __init__(self, listener: "Listener", handshake: Handshake) -> None:
        self._listener, self._handshake = listener, handshake
        self._loop = listener.loop
        self._handshakes = Tasks()
        self._resumptions: list[asyncio.TimerHandle] = []
        self._logged = -LOG_SECONDS
        self.sockets: Sequence[socket.socket] = ()

    async def open(self, host: str, port: int, backlog: int) -> None:
        """Start to accept connections. Raises `OSError`."""
        found = await self._loop.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        self.sockets = [
            socket.create_server(address[:2], family=family, backlog=backlog)
            for family, _, _, _, address in dict.fromkeys(found)
        ]
        for each in self.sockets:
            each.setblocking(False)  # noqa: FBT003 - the only way to call it
            self._loop.add_reader(each, self._accept, each)

    def is_serving(self) -> bool:
        """Return whether connections are accepted."""
        return bool(self.sockets)

    def close(self) -> None:
        """Stop accepting. Handshakes continue."""
        for timer in self._resumptions:
            timer.cancel()
        for each in self.sockets:
            self._loop.remove_reader(each)
            each.close()
        self.sockets = ()

    async def completed(self) -> None:
        """Wait until every handshake has ended."""
        await self._handshakes.finish()

    async def end(self) -> None:
        """Cancel the handshakes."""
        await self._handshakes.end()

    def _accept(self, server: socket.socket) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, address = server.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self._pause(server)
                return
            connection.setblocking(False)  # noqa: FBT003 - the only way to call it
            if self._listener.may_begin(len(self._handshakes)):
                self._handshakes.start(self._begin(connection, address))
            else:
                connection.close()

    def _pause(self, server: socket.socket) -> None:
        self._loop.remove_reader(server)
        resume = self._loop.call_later(PAUSE, self._loop.add_reader, server, self._accept, server)
        self._resumptions = [each for each in self._resumptions if not each.cancelled()]
        self._resumptions.append(resume)

    async def _begin(self, connection: socket.socket, address: Any) -> None:
        try:
            client = await self._client(connection, (str(address[0]), int(address[1])))
        except (OSError, TimeoutError, ProxyHeaderError) as error:
            self._refused("proxy_header", address[0], error)
            connection.close()
            return
        except BaseException:
            connection.close()
            raise
        http = HttpConnection(self._listener, client)
        if not self._listener.expect(http, client[0]):
            connection.close()
            return
        try:
            await self._hand_over(connection, http)
        except OSError as error:  # `ssl.SSLError` and a slow handshake included
            self._refused("tls", client[0], error)
        finally:
            if http not in self._listener.connections:
                self._listener.left(http)

    async def _client(self, connection: socket.socket, peer: Client) -> Client:
        """Return the address of the client: of the peer, or from its PROXY header."""
        balancers = self._handshake.balancers
        if balancers is None:
            return peer
        if not balancers.cover(peer[0]):
            raise ProxyHeaderError("its address is not in TOOLBUS_PROXY_PROTOCOL_FROM")
        header = b""
        async with asyncio.timeout(self._listener.limits.head_seconds):
            while rest := missing(header):
                part = await self._loop.sock_recv(connection, rest)
                if not part:
                    raise ProxyHeaderError("the connection ended within the PROXY header")
                header += part
        return client_of(header) or peer

    async def _hand_over(self, connection: socket.socket, http: HttpConnection) -> None:
        """Complete the TLS handshake, and start HTTP."""
        limits, certificate = self._listener.limits, self._handshake.certificate
        if certificate is None:
            await self._loop.connect_accepted_socket(lambda: http, connection)
            return
        transport, _ = await self._loop.connect_accepted_socket(
            lambda: http,
            connection,
            ssl=certificate.context,
            ssl_handshake_timeout=limits.head_seconds,
            ssl_shutdown_timeout=limits.write_seconds,
        )
        transport.set_write_buffer_limits(high=LARGEST_UNSENT)

    def _refused(self, reason: str, address: str, error: Exception) -> None:
        """Count a connection whose handshake failed, and log it at a limited rate."""
        self._listener.closed(reason)
        now = self._loop.time()
        if now - self._logged >= LOG_SECONDS:
            self._logged = now
            why = str(error) or type(error).__name__
            log.warning(
                "http.handshake_failed", extra={"address": address, "kind": reason, "reason": why}
            )
