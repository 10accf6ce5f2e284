"""One HTTP connection: uvicorn with httptools, with additional limits and response ordering."""

import math
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from toolbus_common.http_server import responses as answers
from toolbus_common.http_server.transport import AnswerTransport

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
MAX_PIPELINED = 16
_CLOSE = b"connection: close\r\n\r\n"
_FRAMING = (b"content-length", b"transfer-encoding")


class _TooManyPipelinedError(Exception):
    pass


class BoundedProtocol(HttpToolsProtocol):
    """A connection with limits of size and time in every state.

    The states are: idle (no request has started), reading a head, reading a body, and deaf
    (closing; received data is no longer parsed). The listener's clock calls `check`, which closes
    connections that exceed a time limit. Requests therefore need no timers.
    """

    def __init__(self, listener: "Listener") -> None:
        super().__init__(listener.config, listener.state, {}, listener.loop)
        self._listener = listener
        self._limits = listener.limits
        self._running: RequestResponseCycle | None = None
        self._idle, self._in_body, self._deaf = True, False, False
        self._deadline = NEVER
        # The deadline has passed. The connection is closed at the next check unless data arrives
        # before.
        self._late = False
        self._clean = True  # all bytes in the counters below belong to the current message
        self._received = self._body_bytes = self._chunk_bytes = self._chunk_began = 0
        self._write_deadline, self._unwritten = NEVER, 0
        self._lingers_until = NEVER
        self.address = ""  # the client address that the connection is counted for
        self._behind_proxy = False
        self._counted: dict[int, str] = {}  # client addresses behind a proxy, by id of the cycle

    # -- the connection ----------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """Admit the connection and start its time limit, so that a silent connection is closed."""
        super().connection_made(AnswerTransport(transport, self._head_of, self._linger))  # type: ignore[arg-type]
        peer = self.client[0] if self.client else ""
        self._behind_proxy = self._limits.proxies.cover(peer)
        self._deadline = self.loop.time() + self._limits.head_seconds
        if not self._listener.admit(self, peer, proxy=self._behind_proxy):
            self._deaf = True
            self.connections.discard(self)
            transport.write(answers.BUSY)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Notify the handlers of this connection's requests."""
        self._deaf = True
        self.transport.closed = True  # type: ignore[attr-defined]
        for cycle in {self._running, self.cycle} - {None}:
            self._disconnect(cycle)
        super().connection_lost(exc)
        for key in list(self._counted):
            self._uncount(key)
        self._listener.left(self)

    def check(self, now: float) -> None:
        """Close the connection if it exceeds a time limit."""
        if self.flow.write_paused or (self._deaf and self._unsent()):
            self._check_reading_peer(now)
        elif now <= self._deadline:
            self._late = False
        elif self._deaf:
            self.transport.abort()
        elif self._in_body and (self.flow.read_paused or self.cycle.waiting_for_100_continue):
            self._deadline = now + self._limits.body_seconds  # the client waits for the server
        elif not self._late:
            self._late = True
        else:
            self._too_slow()

    def _too_slow(self) -> None:
        if self._in_body:
            self._listener.closed("body")
            self._refuse(answers.SLOW_BODY)
        elif self._idle:
            self._listener.closed("idle")
            self.transport.close()
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
        super().pause_writing()
        self._unwritten = self._unsent()
        self._write_deadline = self.loop.time() + self._limits.write_seconds

    def resume_writing(self) -> None:
        """End the time limit for reading; wait for the next request if the response is complete."""
        super().resume_writing()
        self._write_deadline = NEVER
        if self._deadline != NEVER and not self._deaf:
            self._await_next()

    def _check_reading_peer(self, now: float) -> None:
        waiting = self._unsent()
        if waiting < self._unwritten or self._write_deadline == NEVER:
            self._write_deadline = now + self._limits.write_seconds
        elif now > self._write_deadline:
            self._listener.closed("write")
            self.transport.abort()
        self._unwritten = waiting
        self._deadline = max(self._deadline, now + LINGER_SECONDS) if self._deaf else self._deadline

    def _unsent(self) -> int:
        return int(self.transport.get_write_buffer_size())

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
            pipelined = isinstance(error.__context__, _TooManyPipelinedError)
            self._listener.closed("pipelined" if pipelined else "malformed")
            self._refuse(answers.MALFORMED)
            return
        if self._received - self._body_bytes - self._chunk_bytes > self._limits.head:
            self._listener.closed("large_head")
            self._refuse(answers.LARGE_HEAD)
        elif self._in_body and self._deadline == NEVER:
            self._deadline = self.loop.time() + self._limits.body_seconds

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade()
            rest = data[upgrade.args[0] :]
            if rest:
                self._feed(rest)

    def _ignore_upgrade(self) -> None:
        """Continue as if the request had no Upgrade header (RFC 9110, 7.8).

        The parser ends such a message after the head, and would parse the body as another request.
        """
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        kept = [b"%b: %b\r\n" % each for each in self.headers if each[0] in _FRAMING]
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(kept))

    def on_message_begin(self) -> None:
        """Start a request. After `_ignore_upgrade`, the head is parsed a second time."""
        if self._in_body:
            return
        super().on_message_begin()
        if not self._clean:
            self._received = 0
        self._clean = self._idle = False

    def on_url(self, url: bytes) -> None:
        """Store a part of the request line."""
        if not self._in_body:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a header. Trailers are dropped (RFC 9110, 6.5.1)."""
        if not self._in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the application, because the head of the request is complete."""
        if self._in_body:
            return
        if len(self.pipeline) >= MAX_PIPELINED:
            raise _TooManyPipelinedError
        self._in_body, self._deadline = True, NEVER
        if self._behind_proxy:
            address = self._limits.proxies.client_of(self.client[0], self.headers)  # type: ignore[index]
            self.scope["client"] = (address, 0)
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        """Record the position at which a chunk starts."""
        self._chunk_began = self._body_bytes

    def on_chunk_complete(self) -> None:
        """Count the minimal framing bytes of a chunk. All other framing bytes are extensions."""
        self._chunk_bytes += len(b"%x\r\n\r\n" % (self._body_bytes - self._chunk_began))

    def on_body(self, body: bytes) -> None:
        """Store a part of the body."""
        self._body_bytes += len(body)
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.body += body
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Mark the request as complete."""
        if self.parser.should_upgrade():
            return  # `_ignore_upgrade` continues with the body
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()
        self._idle, self._in_body, self._clean = True, False, False
        self._received = self._body_bytes = self._chunk_bytes = 0
        self._deadline = NEVER

    # -- responding --------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        if self._behind_proxy and not self._count(cycle):
            app = answers.busy
        super()._start_asgi_task(cycle, app)

    def _head_of(self, head: bytes) -> bytes:
        """Return the head of a response, with `connection: close` if the connection then closes."""
        cycle = self._running
        if cycle is not None and cycle.keep_alive:
            if not (cycle.more_body or self._deaf or self._listener.leaving):
                return head
            cycle.keep_alive = False
            return head[:-2] + _CLOSE
        return head

    def on_response_complete(self) -> None:
        """Finish the response, and start the next pipelined request."""
        self.transport.flush()  # type: ignore[attr-defined]
        if self._counted:
            self._uncount(id(self._running))
        if self.transport.is_closing():
            return
        if self._deaf:
            self.transport.close()
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._await_next()

    def _await_next(self) -> None:
        seconds = self._limits.head_seconds
        if self._idle:
            seconds = self._listener.idle_seconds
        self._deadline = self.loop.time() + seconds

    # -- ending ------------------------------------------------------------------------------

    def _refuse(self, answer: bytes) -> None:
        """Stop parsing, and send an error response unless another response must come first."""
        self._deaf, self._received = True, 0
        self.pipeline.clear()
        cycle = self._running
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                if cycle.response_started:
                    cycle.keep_alive = False
                self._deadline = NEVER
                return
            self._disconnect(cycle)
            if cycle.response_started:
                self.transport.abort()
                return
        self.transport.write(answer)
        self.transport.close()

    def _linger(self) -> None:
        """Close for writing, and keep reading for a short time.

        An immediate reset could discard the response.
        """
        self._deaf, self._received = True, 0
        now = self.loop.time()
        self._deadline, self._lingers_until = now + LINGER_SECONDS, now + LONGEST_LINGER
        transport = self.transport.raw  # type: ignore[attr-defined]
        if not transport.is_closing():
            self._unwritten = self._unsent()
            transport.write_eof()
            self.flow.resume_reading()

    def _discard(self) -> None:
        if self._received > LARGEST_LINGER:
            self.transport.abort()
        elif self.transport.closed:  # type: ignore[attr-defined]
            self._deadline = min(self.loop.time() + LINGER_SECONDS, self._lingers_until)

    def _disconnect(self, cycle: RequestResponseCycle | None) -> None:
        """Notify the handler of a request that the client has disconnected."""
        if cycle is None:
            return
        scope: Any = cycle.scope
        scope[LEFT] = True
        gone = scope.pop(GONE, None)
        if gone is not None:
            gone()
        if not cycle.response_complete:
            cycle.disconnected = True
        cycle.message_event.set()

    # -- requests through a trusted proxy ----------------------------------------------------

    def _count(self, cycle: RequestResponseCycle) -> bool:
        client = cycle.scope["client"]
        address = self._listener.take(client[0] if client else "")
        if address:
            self._counted[id(cycle)] = address
        return bool(address)

    def _uncount(self, key: int) -> None:
        address = self._counted.pop(key, "")
        if address:
            self._listener.give_back(address)
