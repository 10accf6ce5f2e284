"""Egress proxy of a server's process: the only network access, to configured hosts.

The proxy checks a host against the list before it resolves the host's name. It then checks the
addresses with the rules for the addresses of all servers.
"""

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from toolbus_common.concurrency import Tasks, end
from toolbus_common.egress import Allowed, EgressError, Target
from toolbus_common.egress.connect_request import ConnectRequest, NoRequestError, parse_request
from toolbus_common.egress.resolver import Resolve
from toolbus_executor.transport.dialer import DialedSocket, Dialer

log = logging.getLogger(__name__)

MAX_OPEN = 32  # connections of one server
MAX_BYTES = 32 << 20  # per second and server, so that other tasks get time of the event loop
MIN_PIECE = 32 << 10  # smaller pieces and new connections count as this many bytes
MAX_CONCURRENT_LOOKUPS = 2  # per server, because all name lookups share a few threads
ACCEPT_SECONDS = 1.0
HEAD_SECONDS, DIAL_SECONDS, IDLE_SECONDS = 15.0, 15.0, 900.0
LARGEST_HEAD = 32 * 1024
MAX_REMEMBERED = 100  # rejected hosts that are counted
_CHUNK = 64 * 1024
_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_REASONS = {400: "Bad Request", 403: "Forbidden", 502: "Bad Gateway", 503: "Service Unavailable"}
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _RejectedError(Exception):
    """A rejected request. The program receives an HTTP error with this text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(slots=True)
class EgressProxy:
    """Egress proxy of one server. `refused` is the number of rejected requests per host."""

    server: str
    hosts: Allowed
    way: Dialer
    refused: dict[str, int] = field(default_factory=dict)
    _connections: Tasks = field(default_factory=Tasks)
    _serving: asyncio.Task[None] | None = None
    _free_at: float = 0.0  # time at which the server's bandwidth is free again

    def __post_init__(self) -> None:
        self.way = replace(self.way, resolve=_few_at_once(self.way.resolve))

    @contextmanager
    def handover(self) -> Iterator[int]:
        """Yield the descriptor over which the process sends its listening socket to the proxy."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._serving = asyncio.create_task(self._serve(ours))
            yield theirs.fileno()

    async def close(self) -> None:
        """Close the listening socket and all connections."""
        if self._serving is not None:
            await end(self._serving)

    async def _serve(self, ours: socket.socket) -> None:
        with ours:
            listening = await _receive_socket(ours)
        if listening is None:  # the process never started
            return
        listening.settimeout(0)
        try:
            with listening:
                while True:
                    await self._throttle(0)
                    await self._accept(listening)
        finally:
            await asyncio.sleep(
                0
            )  # each task has begun, so that its cancellation closes the socket
            await self._connections.end()

    async def _accept(self, listening: socket.socket) -> None:
        """Accept one connection. If no descriptor is free, wait a moment instead."""
        try:
            opened, _ = await asyncio.get_running_loop().sock_accept(listening)
        except OSError:
            await asyncio.sleep(ACCEPT_SECONDS)
            return
        # The limit is checked on arrival: an open connection is never closed in favour of a new
        # one.
        full = len(self._connections) >= MAX_OPEN
        self._connections.start(self._serve_connection(opened, full=full))

    async def _throttle(self, size: int) -> None:
        """Wait until the server's bandwidth permits `size` more bytes."""
        now = asyncio.get_running_loop().time()
        wait = self._free_at - now
        self._free_at = max(now, self._free_at) + max(size, MIN_PIECE) / MAX_BYTES
        if wait > 0:
            await asyncio.sleep(wait)

    async def _serve_connection(self, opened: socket.socket, *, full: bool) -> None:
        """Serve one connection of the program until it ends."""
        try:
            reader, writer = await asyncio.open_connection(sock=opened, limit=LARGEST_HEAD)
        except BaseException:
            opened.close()
            raise
        try:
            await self._handle(reader, writer, full=full)
        except _RejectedError as error:
            writer.write(_reply(error))
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        finally:
            await _close(writer)

    async def _handle(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, full: bool
    ) -> None:
        """Read and check the program's request, connect to the target, and forward bytes."""
        if full:
            raise _RejectedError(503, f"More than {MAX_OPEN} connections are open; close some.")
        async with asyncio.timeout(HEAD_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
        request = self._check(head)
        connected = await self._dial(request)
        upstream = await asyncio.open_connection(sock=connected.socket)
        try:
            if request.is_tunnel:
                writer.write(_ESTABLISHED)
            else:
                upstream[1].write(request.onward(connected.before, connected.headers))
            await self._splice((reader, writer), upstream)
        finally:
            upstream[1].transport.abort()

    def _check(self, head: bytes) -> ConnectRequest:
        """Return the parsed request if its target is configured. Raises `_RejectedError`."""
        try:
            request = parse_request(head)
        except NoRequestError:
            text = (
                "This is a proxy: use CONNECT host:port, or a method with an absolute http:// URL."
            )
            raise _RejectedError(400, text) from None
        except EgressError as error:
            raise _RejectedError(400, f"The target cannot be reached: {error}.") from None
        if not self.hosts.names(request.target):
            self._note(request.target)
            raise _RejectedError(
                403,
                f"{self.server} is not allowed to connect to {request.target.authority}; an "
                "operator can list the host under network in the server's configuration.",
            )
        return request

    async def _dial(self, request: ConnectRequest) -> DialedSocket:
        """Connect to the target of a request. Raises `_RejectedError`."""
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                return await self.way.connected(request.url)
        except EgressError as error:
            self._note(request.target)
            text = f"Connections to {request.target.authority} are not allowed: {error}."
            raise _RejectedError(403, text) from None
        except (OSError, TimeoutError):
            text = f"{request.target.authority} cannot be reached now; retry later."
            raise _RejectedError(502, text) from None

    async def _splice(self, one: Pair, other: Pair) -> None:
        """Forward bytes in both directions until the target closes or the idle timeout ends."""
        try:
            async with asyncio.timeout(IDLE_SECONDS) as idle_timeout, asyncio.TaskGroup() as group:
                outward = group.create_task(self._pump(one[0], other[1], idle_timeout))
                await self._pump(other[0], one[1], idle_timeout)
                outward.cancel()
        except* (OSError, TimeoutError):
            one[1].transport.abort()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        idle_timeout: asyncio.Timeout,
    ) -> None:
        loop = asyncio.get_running_loop()
        while piece := await reader.read(_CHUNK):
            await self._throttle(len(piece))
            idle_timeout.reschedule(loop.time() + IDLE_SECONDS)
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    def _note(self, target: Target) -> None:
        """Count a rejected request, and log each rejected host once.

        The number of remembered hosts is limited.
        """
        host = target.authority
        if host not in self.refused and len(self.refused) < MAX_REMEMBERED:
            log.warning("network.rejected", extra={"server": self.server, "host": host})
            self.refused[host] = 0
        if host in self.refused:
            self.refused[host] += 1


def _few_at_once(resolve: Resolve) -> Resolve:
    slots = asyncio.Semaphore(MAX_CONCURRENT_LOOKUPS)

    async def limited(target: Target) -> list[str]:
        async with slots:
            return await resolve(target)

    return limited


async def _receive_socket(handover: socket.socket) -> socket.socket | None:
    """Return the socket that the process sends; None if the process closes its end first."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    handover.settimeout(0)
    loop.add_reader(handover, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(handover)
    _, descriptors, _, _ = socket.recv_fds(handover, 1, 1)
    return socket.socket(fileno=descriptors[0]) if descriptors else None


def _reply(error: _RejectedError) -> bytes:
    body = f"{error}\n".encode()
    return (
        f"HTTP/1.1 {error.status} {_REASONS[error.status]}\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode() + body


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(HEAD_SECONDS):
            await writer.wait_closed()
