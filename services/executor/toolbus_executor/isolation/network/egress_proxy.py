"""The gate of a server's process: the only way out of its network, for the hosts that are listed.

It is a proxy. The process sees nothing else of any network, so whoever does not ask here reaches
nobody. A host is held against the list before its name is looked up, then the addresses it stands
for are checked like those of any server.
"""

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from toolbus_common.concurrency import end
from toolbus_common.egress import Allowed, EgressError, Target
from toolbus_common.egress.resolver import Resolve
from toolbus_executor.isolation.network.connect_request import (
    ConnectRequest,
    NoRequestError,
    asked_in,
)
from toolbus_executor.transport.dialer import Connected, Way

log = logging.getLogger(__name__)

MOST_OPEN = 32  # connections of one server
MOST_BYTES = 32 << 20  # a second, of all of them: the loop is needed by others too
LEAST_PIECE = 32 << 10  # bytes that the smallest piece counts as, and a connection
MOST_LOOKED_UP = 2  # names at once: that is done by threads that others need too
ACCEPT_SECONDS = 1.0
HEAD_SECONDS, DIAL_SECONDS, IDLE_SECONDS = 15.0, 15.0, 900.0
LARGEST_HEAD = 32 * 1024
MOST_REMEMBERED = 100  # hosts that were refused
_CHUNK = 64 * 1024
_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_REASONS = {400: "Bad Request", 403: "Forbidden", 502: "Bad Gateway", 503: "Service Unavailable"}
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _RefusedError(Exception):
    """What a program is told instead."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(slots=True)
class Gate:
    """What one server may reach, and how; `refused` are hosts it wanted to, as many times."""

    server: str
    hosts: Allowed
    way: Way
    refused: dict[str, int] = field(default_factory=dict)
    _passing: set[asyncio.Task[None]] = field(default_factory=set)
    _serving: asyncio.Task[None] | None = None
    _free_at: float = 0.0  # when its share of time is used up till

    def __post_init__(self) -> None:
        self.way = replace(self.way, resolve=_few_at_once(self.way.resolve))

    @contextmanager
    def hatch(self) -> Iterator[int]:
        """What a process is begun with: the socket it hands back through it is answered."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._serving = asyncio.create_task(self._serve(ours))
            yield theirs.fileno()

    async def close(self) -> None:
        """Let nothing through any more."""
        if self._serving is not None:
            await end(self._serving)

    async def _serve(self, ours: socket.socket) -> None:
        with ours:
            listening = await _handed(ours)
        if listening is None:  # it never began
            return
        listening.settimeout(0)
        try:
            with listening:
                while True:
                    await self._in_turn(0)
                    await self._let_in(listening)
        finally:
            await end(*self._passing)

    async def _let_in(self, listening: socket.socket) -> None:
        """Take one connection; where there is no descriptor left for it, a little later."""
        loop = asyncio.get_running_loop()
        try:
            opened, _ = await loop.sock_accept(listening)
        except OSError:
            await asyncio.sleep(ACCEPT_SECONDS)
            return
        # Counted as they come: who is in already is not turned away for who comes after.
        full = len(self._passing) >= MOST_OPEN
        task = loop.create_task(self._met(opened, full=full))
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)

    async def _in_turn(self, size: int) -> None:
        """Wait for what was done for this server already."""
        now = asyncio.get_running_loop().time()
        wait = self._free_at - now
        self._free_at = max(now, self._free_at) + max(size, LEAST_PIECE) / MOST_BYTES
        if wait > 0:
            await asyncio.sleep(wait)

    async def _met(self, opened: socket.socket, *, full: bool) -> None:
        """One connection of the program's, to its end."""
        try:
            reader, writer = await asyncio.open_connection(sock=opened, limit=LARGEST_HEAD)
        except BaseException:
            opened.close()
            raise
        try:
            await self._pass(reader, writer, full=full)
        except _RefusedError as error:
            writer.write(_answer(error))
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        finally:
            await _closed(writer)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, full: bool
    ) -> None:
        """Judge what is asked for, connect, and let bytes through."""
        if full:
            raise _RefusedError(503, f"More than {MOST_OPEN} connections are open; close some.")
        async with asyncio.timeout(HEAD_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
        asked = self._judged(head)
        connected = await self._dialled(asked)
        there = await asyncio.open_connection(sock=connected.socket)
        try:
            if asked.is_tunnel:
                writer.write(_ESTABLISHED)
            else:
                there[1].write(asked.onward(connected.before, connected.headers))
            await self._spliced((reader, writer), there)
        finally:
            there[1].transport.abort()

    def _judged(self, head: bytes) -> ConnectRequest:
        """What is asked for, if it is listed. Raises `_RefusedError`."""
        try:
            asked = asked_in(head)
        except NoRequestError:
            said = "This is a proxy: CONNECT host:port, or a method with a whole http:// URL."
            raise _RefusedError(400, said) from None
        except EgressError as error:
            raise _RefusedError(400, f"This cannot be reached: {error}.") from None
        if not self.hosts.names(asked.target):
            self._note(asked.target)
            raise _RefusedError(
                403,
                f"{self.server} may not reach {asked.target.authority}; its operator lists hosts "
                "under network in its declaration.",
            )
        return asked

    async def _dialled(self, asked: ConnectRequest) -> Connected:
        """A connection to what is listed. Raises `_RefusedError`."""
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                return await self.way.connected(asked.url)
        except EgressError as error:
            self._note(asked.target)
            said = f"{asked.target.authority} may not be called: {error}."
            raise _RefusedError(403, said) from None
        except (OSError, TimeoutError):
            said = f"{asked.target.authority} cannot be reached now; retry later."
            raise _RefusedError(502, said) from None

    async def _spliced(self, one: Pair, other: Pair) -> None:
        """Let bytes through both ways until the far end is done, or nothing moves for long."""
        try:
            async with asyncio.timeout(IDLE_SECONDS) as patience, asyncio.TaskGroup() as group:
                outward = group.create_task(self._pumped(one[0], other[1], patience))
                await self._pumped(other[0], one[1], patience)
                outward.cancel()
        except* (OSError, TimeoutError):
            one[1].transport.abort()

    async def _pumped(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, patience: asyncio.Timeout
    ) -> None:
        loop = asyncio.get_running_loop()
        while piece := await reader.read(_CHUNK):
            await self._in_turn(len(piece))
            patience.reschedule(loop.time() + IDLE_SECONDS)
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    def _note(self, target: Target) -> None:
        """Say so once of each host, and of so many hosts only."""
        host = target.authority
        if host not in self.refused and len(self.refused) < MOST_REMEMBERED:
            log.warning("network.refused", extra={"server": self.server, "host": host})
            self.refused[host] = 0
        if host in self.refused:
            self.refused[host] += 1


def _few_at_once(resolve: Resolve) -> Resolve:
    places = asyncio.Semaphore(MOST_LOOKED_UP)

    async def looked_up(target: Target) -> list[str]:
        async with places:
            return await resolve(target)

    return looked_up


async def _handed(hatch: socket.socket) -> socket.socket | None:
    """The socket that is handed over; None where the other end is closed without."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    hatch.settimeout(0)
    loop.add_reader(hatch, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(hatch)
    _, descriptors, _, _ = socket.recv_fds(hatch, 1, 1)
    return socket.socket(fileno=descriptors[0]) if descriptors else None


def _answer(error: _RefusedError) -> bytes:
    body = f"{error}\n".encode()
    return (
        f"HTTP/1.1 {error.status} {_REASONS[error.status]}\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode() + body


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(HEAD_SECONDS):
            await writer.wait_closed()
