"""One HTTP/1.1 connection: limits of size and time in every state, and responses in order."""

import asyncio
import fcntl
import math
import sys
import termios
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httptools

from toolbus_common.http_server import responses as answers
from toolbus_common.http_server.exchange import Exchange
from toolbus_common.http_server.request_parser import RequestParser, TooManyPipelinedError

if TYPE_CHECKING:
    from toolbus_common.http_server.listener import Listener

GONE = "toolbus.gone"  # in the scope: a callback for the time when the client closes the connection
LEFT = "toolbus.left"  # in the scope: the client has closed its connection

NEVER = math.inf
# Data of a client that is still sending is read for some time, so that a reset does not discard the
# response. The first limit starts again with each received piece.
LINGER_SECONDS = 2.0  # after the last received data
LONGEST_LINGER = 10.0  # in total
LARGEST_LINGER = 16 * 1024 * 1024
LARGEST_UNREAD = 64 * 1024  # bytes of a body that wait for the application before reading pauses
MAX_PIPELINED = 16


class HttpConnection(RequestParser, asyncio.Protocol):
    """A connection with limits of size and time in every state.

    The states are: idle (no request has started), reading a head, reading a body, and deaf
    (closing; received data is no longer parsed). The listener's clock calls `check`, which closes
    connections that exceed a time limit. Requests therefore need no timers.
    """

    def __init__(self, listener: "Listener", client: tuple[str, int] | None = None) -> None:
        super().__init__()
        self._listener = listener
        self._limits = listener.limits
        self.loop = listener.loop
        self.transport: asyncio.Transport
        self._parsed: Exchange | None = None  # the newest request
        self._running: Exchange | None = None  # the request whose response is sent next
        self._pipeline: deque[Exchange] = deque()  # parsed requests that wait for it
        self._deaf = False
        self._closed = False  # for writing
        self._read_paused = self.write_paused = False
        self._drained: asyncio.Future[None] | None = None
        self._deadline = NEVER
        # The deadline has passed. The connection is closed at the next check unless data arrives
        # before.
        self._late = False
        self._write_deadline, self._unwritten = NEVER, 0
        self._lingers_until = NEVER
        self._peer = client  # known before HTTP starts if there was a handshake
        self._own: tuple[str, int] | None = None
        self.address = ""  # the client address that the connection is counted for
        self._behind_proxy = False
        self._counted: dict[int, str] = {}  # client addresses behind a proxy, by id of the exchange

    # -- the connection ----------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """Admit the connection and start its time limit, so that a silent connection is closed."""
        self.transport = transport
        self._peer = self._peer or _address(transport.get_extra_info("peername"))
        self._own = _address(transport.get_extra_info("sockname"))
        self._listener.connections.add(self)
        peer = self._peer[0] if self._peer else ""
        self._behind_proxy = self._limits.proxies.cover(peer)
        self._deadline = self.loop.time() + self._limits.head_seconds
        if not self._listener.admit(self, peer, proxy=self._behind_proxy):
            self._deaf = self._closed = True
            self._listener.connections.discard(self)
            transport.write(answers.BUSY)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Notify the handlers of this connection's requests."""
        self._deaf = self._closed = True
        self._listener.connections.discard(self)
        for exchange in {self._running, self._parsed}:
            self._disconnect(exchange)
        self._pipeline.clear()
        self._resume_senders()
        for key in list(self._counted):
            self._uncount(key)
        self._listener.left(self)
        # The parser and the exchanges refer to this connection.
        del self._parser
        self._running = self._parsed = None

    @property
    def ends(self) -> bool:
        """Whether the connection closes after the next response."""
        return self._deaf or self._listener.leaving

    def close(self) -> None:
        """Close for writing, and keep reading for a short time.

        An immediate reset could discard the response.
        """
        if self._closed:
            return
        self._closed = self._deaf = True
        self._received = 0
        now = self.loop.time()
        self._deadline, self._lingers_until = now + LINGER_SECONDS, now + LONGEST_LINGER
        if not self.transport.is_closing():
            self._unwritten = self._unsent()
            if self.transport.can_write_eof():
                self.transport.write_eof()
            elif self._idle:
                self._end(now)
            self.resume_reading()

    def _end(self, now: float) -> None:
        """Close the connection now; with TLS, after its closing message and the pending data."""
        if self.transport.can_write_eof() or self.transport.is_closing():
            self.transport.abort()
        else:
            self._deadline = now + LINGER_SECONDS
            self.transport.close()

    def check(self, now: float) -> None:
        """Close the connection if it exceeds a time limit."""
        if self.write_paused or (self._deaf and self._unsent()):
            self._check_reading_peer(now)
        elif now <= self._deadline:
            self._late = False
        elif self._deaf:
            self._end(now)
        elif self._in_body and self._waits_for_server():
            self._deadline = now + self._limits.body_seconds  # the client waits for the server
        elif not self._late:
            self._late = True
        else:
            self._too_slow()

    def _waits_for_server(self) -> bool:
        """Return whether the client cannot send its body yet."""
        return self._read_paused or (self._parsed is not None and self._parsed.awaits_continue)

    def _too_slow(self) -> None:
        if self._in_body:
            self._listener.closed("body")
            self._refuse(answers.SLOW_BODY)
        elif self._idle:
            self._listener.closed("idle")
            self.close()
        else:
            self._listener.closed("head")
            self._refuse(answers.SLOW_HEAD)

    def close_when_quiet(self, deadline: float) -> None:
        """Close the connection at `deadline` unless a request starts before."""
        if self._idle and self._deadline != NEVER:
            self._deadline = min(self._deadline, deadline)

    # -- unread responses -------------------------------------------------------------------

    def pause_writing(self) -> None:
        """Start the time limit for the client to read pending data."""
        self.write_paused = True
        self._unwritten = self._unsent()
        self._write_deadline = self.loop.time() + self._limits.write_seconds

    def resume_writing(self) -> None:
        """End the time limit for reading; wait for the next request if the response is complete."""
        self._resume_senders()
        self._write_deadline = NEVER
        if self._deadline != NEVER and not self._deaf:
            self._await_next()

    def drained(self) -> asyncio.Future[None]:
        """Return a future that ends when the client has read enough, or has disconnected."""
        if self._drained is None:
            self._drained = self.loop.create_future()
        return self._drained

    def _resume_senders(self) -> None:
        self.write_paused = False
        waiting, self._drained = self._drained, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def _check_reading_peer(self, now: float) -> None:
        waiting = self._unsent()
        if waiting < self._unwritten or self._write_deadline == NEVER:
            self._write_deadline = now + self._limits.write_seconds
        elif now > self._write_deadline:
            self._listener.closed("write")
            self.transport.abort()
        self._unwritten = waiting
        if self._deaf:
            self._deadline = max(self._deadline, now + LINGER_SECONDS)

    def _unsent(self) -> int:
        size = self.transport.get_write_buffer_size()
        if self._deaf and not size and not self.transport.can_write_eof():
            return _unacknowledged(self.transport)  # of the encrypted data, part is not in `size`
        return size

    # -- parsing -----------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse data. Count all bytes except the body and the minimal chunk framing."""
        self._received += len(data)
        if self._deaf:
            self._discard()
            return
        if self._idle:
            self._idle, self._late, self._clean = False, False, True
            if self._deadline != NEVER:
                self._deadline = self.loop.time() + self._limits.head_seconds
        else:
            self._clean = False
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            pipelined = isinstance(error.__context__, TooManyPipelinedError)
            self._listener.closed("pipelined" if pipelined else "malformed")
            self._refuse(answers.MALFORMED)
            return
        if self._received - self._body_bytes - self._chunk_bytes > self._limits.head:
            self._listener.closed("large_head")
            self._refuse(answers.LARGE_HEAD)
        elif self._in_body and self._deadline == NEVER:
            self._deadline = self.loop.time() + self._limits.body_seconds

    def _begin(self, scope: dict[str, Any], *, keep_alive: bool) -> None:
        """Start the application, or queue the request behind those before it."""
        if len(self._pipeline) >= MAX_PIPELINED:
            raise TooManyPipelinedError
        self._deadline = NEVER
        client = self._peer
        if self._behind_proxy and client is not None:
            client = (self._limits.proxies.client_of(client[0], self._headers), 0)
        scope["client"], scope["server"] = client, self._own
        exchange = Exchange(
            self, scope, keep_alive=keep_alive, awaits_continue=self._expects_continue
        )
        before, self._parsed = self._parsed, exchange
        if before is None or before.response_complete:
            self._start(exchange)
        else:
            self._pause_reading()
            self._pipeline.append(exchange)

    def on_body(self, body: bytes) -> None:
        """Store a part of the body."""
        self._body_bytes += len(body)
        exchange = self._parsed
        if exchange is None or exchange.response_complete:
            return
        exchange.parts.append(body)
        exchange.size += len(body)
        exchange.wake()
        if exchange.size > LARGEST_UNREAD:
            self._pause_reading()

    def on_message_complete(self) -> None:
        """Mark the request as complete."""
        if self._parser.should_upgrade():
            return  # `_ignore_upgrade` continues with the body
        exchange = self._parsed
        if exchange is not None and not exchange.response_complete:
            exchange.more_body = False
            exchange.wake()
        self._idle, self._in_body, self._clean = True, False, False
        self._received = self._body_bytes = self._chunk_bytes = 0
        self._deadline = NEVER

    # -- responding --------------------------------------------------------------------------

    def _start(self, exchange: Exchange) -> None:
        self._running = exchange
        app = self._listener.app
        if self._behind_proxy and not self._count(exchange):
            app = answers.busy
        task = self.loop.create_task(exchange.run(app))
        self._listener.tasks.add(task)
        task.add_done_callback(self._listener.tasks.discard)

    def write(self, data: bytes) -> None:
        """Write a part of a response. Data for a client that has disconnected is dropped."""
        if data and not self._closed and not self.transport.is_closing():
            self.transport.write(data)

    def complete(self, exchange: Exchange) -> None:
        """Finish a response, and start the next pipelined request."""
        if self._counted:
            self._uncount(id(exchange))
        if self._closed or self.transport.is_closing():
            return
        if self._deaf:
            self.close()
            return
        self.resume_reading()
        if self._pipeline:
            self._start(self._pipeline.popleft())
        else:
            self._await_next()

    def resume_reading(self) -> None:
        """Read again if reading was paused."""
        if self._read_paused:
            self._read_paused = False
            self.transport.resume_reading()

    def _pause_reading(self) -> None:
        if not self._read_paused:
            self._read_paused = True
            self.transport.pause_reading()

    def _await_next(self) -> None:
        seconds = self._limits.head_seconds
        if self._idle:
            seconds = self._listener.idle_seconds
        self._deadline = self.loop.time() + seconds

    # -- ending ------------------------------------------------------------------------------

    def _refuse(self, answer: bytes) -> None:
        """Stop parsing, and send an error response unless another response must come first."""
        self._deaf, self._received = True, 0
        self._pipeline.clear()
        running = self._running
        if running is not None and not running.response_complete:
            if not running.more_body:
                if running.response_started:
                    running.keep_alive = False
                self._deadline = NEVER
                return
            self._disconnect(running)
            if running.response_started:
                self.transport.abort()
                return
        self.write(answer)
        self.close()

    def _discard(self) -> None:
        if self._received > LARGEST_LINGER:
            self.transport.abort()
        elif self._closed:
            self._deadline = min(self.loop.time() + LINGER_SECONDS, self._lingers_until)

    def _disconnect(self, exchange: Exchange | None) -> None:
        """Notify the handler of a request that the client has disconnected."""
        if exchange is None:
            return
        exchange.scope[LEFT] = True
        gone = exchange.scope.pop(GONE, None)
        if gone is not None:
            gone()
        if not exchange.response_complete:
            exchange.disconnected = True
        exchange.wake()

    # -- requests through a trusted proxy ----------------------------------------------------

    def _count(self, exchange: Exchange) -> bool:
        client = exchange.scope["client"]
        address = self._listener.take(client[0] if client else "")
        if address:
            self._counted[id(exchange)] = address
        return bool(address)

    def _uncount(self, key: int) -> None:
        address = self._counted.pop(key, "")
        if address:
            self._listener.give_back(address)


def _address(found: Any) -> tuple[str, int] | None:
    """Return the host and port of a socket's name; None for a Unix socket."""
    return (str(found[0]), int(found[1])) if isinstance(found, tuple) else None


def _unacknowledged(transport: asyncio.Transport) -> int:
    """Return how many sent bytes the client has not acknowledged; 0 if that is unknown."""
    with suppress(OSError, ValueError):
        found = fcntl.ioctl(
            transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, b"\0" * 4
        )
        return int.from_bytes(found, sys.byteorder)
    return 0
