"""TCP listener that knows each of its connections as soon as it is accepted.

A server of `asyncio.start_server` does not know a connection before its TLS handshake has ended. A
connection that is accepted while the server closes is then never closed.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from toolbus_common.concurrency import Tasks

BACKLOG = 100
PAUSE = 1.0  # seconds before the next accept if the process has too many open files
LIMIT = 64 * 1024  # characters of a line, unless the caller says otherwise
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(
    serve: Serve,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    context: ssl.SSLContext | None = None,
    limit: int = LIMIT,
) -> AsyncIterator[int]:
    """Call `serve` with each connection until the context ends; yield the port.

    At the end, all tasks of connections are cancelled and awaited. Raises `OSError` if the port is
    taken.
    """
    listener = _Listener(serve, context, limit)
    listener.open(host, port)
    try:
        yield listener.port
    finally:
        await listener.close()


class _Listener:
    def __init__(self, serve: Serve, context: ssl.SSLContext | None, limit: int) -> None:
        self._serve = serve
        self._context = context
        self._limit = limit
        self._connections = Tasks()
        self._loop = asyncio.get_running_loop()
        self._resume: asyncio.TimerHandle | None = None
        self._socket: socket.socket

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    def open(self, host: str, port: int) -> None:
        self._socket = socket.create_server((host, port), backlog=BACKLOG)
        self._socket.setblocking(False)  # noqa: FBT003 - the only way to call it
        self._loop.add_reader(self._socket, self._accept)

    async def close(self) -> None:
        self._loop.remove_reader(self._socket)
        if self._resume is not None:
            self._resume.cancel()
        self._socket.close()
        await asyncio.sleep(0)  # each task has begun, so that its cancellation closes the socket
        await self._connections.end()
        await asyncio.sleep(0)  # sockets close one turn of the event loop after their transports

    def _accept(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError:
            self._loop.remove_reader(self._socket)
            self._resume = self._loop.call_later(
                PAUSE, self._loop.add_reader, self._socket, self._accept
            )
            return
        connection.setblocking(False)  # noqa: FBT003 - the only way to call it
        self._connections.start(self._connected(connection))

    async def _connected(self, connection: socket.socket) -> None:
        reader = asyncio.StreamReader(limit=self._limit)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await self._loop.connect_accepted_socket(
                lambda: protocol, connection, ssl=self._context
            )
        except OSError:  # `ssl.SSLError` included
            return
        writer = asyncio.StreamWriter(transport, protocol, reader, self._loop)
        try:
            await self._serve(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()  # do not wait for a client that does not read
            raise
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
