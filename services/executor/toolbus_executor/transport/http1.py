"""HTTP/1.1 client of one upstream: a pool of connections on asyncio and httptools, with limits."""

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import chain
from math import inf
from time import monotonic

import httptools
from msgspec import Struct

from toolbus_common.egress import EgressError
from toolbus_common.errors import ToolbusError
from toolbus_executor.results.large.spill import SpillBuffer
from toolbus_executor.results.large.spill_registry import MessageSpill
from toolbus_executor.transport.dialer import DialedSocket, Dialer

# Shorter than the usual timeout of servers, 5 s, so that no request is sent on a closed connection.
IDLE_SECONDS = 4.0
CONNECT_SECONDS, DEFAULT_SECONDS = 5.0, 20.0
LARGEST_BODY = 7 * 1024 * 1024  # bytes; a result must fit into a message on the bus
LARGEST_HELD = 6 * 1024 * 1024  # bytes; a larger response is spilled
LARGEST_HEAD = 64 * 1024
MAX_IDLE = 64
END_SECONDS = 1.0  # time for a stream to end after its reply
STREAMS = (b"text/event-stream", b"application/vnd.amazon.eventstream")
FIRST_FINAL_STATUS = 200  # a lower status is that of an interim response (100, 103)


class NotSentError(Exception):
    """The upstream could not be reached. No byte was sent."""


class BrokenError(Exception):
    """The connection broke after the request was sent, or the response is not HTTP."""


class TooLargeError(Exception):
    """The response exceeds a size limit."""


def _too_large(maximum: int) -> TooLargeError:
    return TooLargeError(f"the response exceeds {maximum} bytes")


class Head(Struct):
    """Status and headers of a response. The names of headers are in lower case."""

    status: int
    headers: dict[bytes, bytes]

    @property
    def is_stream(self) -> bool:
        """Whether the body is an event stream."""
        return self.headers.get(b"content-type", b"").startswith(STREAMS)


_NO_HEAD = Head(0, {})

# Receives the pieces of a stream; the first one is empty. Returns True after the reply. An optional
# method `left` is called on timeout; it returns the seconds of further waiting.
OnStream = Callable[[bytes], bool]


class Connection(asyncio.Protocol):
    """One connection, with one request at a time. The response is read completely or streamed.

    `proxy` is set if the connection leads to a proxy that forwards plain requests.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, proxy: DialedSocket | None = None) -> None:
        self._loop = loop
        self._proxy = proxy
        self._transport: asyncio.Transport | None = None
        self._fields: dict[bytes, bytes] = {}  # received headers, or ignored trailers
        self.on_header = self._fields.__setitem__  # avoids a Python call per header
        self._parser = httptools.HttpResponseParser(self)
        self._waiting: asyncio.Future[tuple[Head, bytes]] | None = None
        self._on_stream: OnStream | None = None
        self._head = _NO_HEAD
        self._unparsed = 0  # bytes received since the last piece of a body
        self._streams = False
        self._parts: list[bytes] = []
        self._size = 0
        self._large: MessageSpill | None = None
        self.spill: SpillBuffer | None = None  # set for a body that is too large for memory
        self.keeps = False  # the server keeps the connection open after the response
        self._until_closed = False  # a body without a length ends with the connection
        self._bodiless = False  # a HEAD request: the response has a Content-Length but no body
        self._deadline = inf  # deadline of the request in progress, in monotonic seconds
        self._timer: asyncio.TimerHandle | None = None  # shared by successive requests
        self._timer_at = 0.0
        self.idle_since = 0.0
        self.on_whole: Callable[[], None] | None = None  # called when a response has ended

    # -- asyncio -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        """End the request in progress, if there is one."""
        if exc is None and self._until_closed:
            self._finish()
        self._fail(BrokenError(str(exc) if exc else "the upstream closed the connection"))
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse received bytes."""
        if self._waiting is None and self.on_whole is None:
            self.close()  # unrequested bytes must not become the next response
            return
        self._unparsed += len(data)
        try:
            self._parser.feed_data(data)
            if self._unparsed > LARGEST_HEAD:  # an incomplete head, or trailers
                raise _too_large(LARGEST_HEAD)
        except (httptools.HttpParserError, TooLargeError) as error:
            cause = error.__context__ if isinstance(error, httptools.HttpParserError) else error
            known = cause if isinstance(cause, TooLargeError | ToolbusError) else None
            self._fail(known or BrokenError(str(error)))
            self.close()

    # -- httptools ---------------------------------------------------------------------------

    def on_headers_complete(self) -> None:
        """Store the head, and prepare for the body."""
        if self._waiting is None or self._waiting.done():
            self.close()  # a second response to one request
        fields, unparsed = self._fields, self._unparsed
        headers = {name.lower(): value.strip() for name, value in fields.items()}
        if unparsed > LARGEST_HEAD and sum(map(len, chain(*fields.items()))) > LARGEST_HEAD:
            raise _too_large(LARGEST_HEAD)
        fields.clear()
        self._unparsed = 0
        self._until_closed = not (b"content-length" in headers or b"transfer-encoding" in headers)
        self._head = head = Head(self._parser.get_status_code(), headers)
        self._streams = self._on_stream is not None and head.is_stream
        if self._bodiless and head.status >= FIRST_FINAL_STATUS:
            self._finish()
        elif self._streams and self._on_stream is not None:
            self._on_stream(b"")  # marks the beginning, because data can follow much later

    def on_body(self, body: bytes) -> None:
        """Pass a piece of the body to the stream or the spill buffer, or store it."""
        self._unparsed = 0
        if self._streams and self._on_stream is not None:
            if self._on_stream(body):
                self._finish()
        elif self.spill is not None:
            self.spill.feed(body)
        else:
            self._parts.append(body)
            self._size += len(body)
            if self._size > LARGEST_BODY:
                raise _too_large(LARGEST_BODY)
            large = self._large
            if self._size > LARGEST_HELD and large is not None and large.spills is not None:
                self._begin_spill(large)

    def on_message_complete(self) -> None:
        """Complete the response."""
        self._until_closed = False
        if self._head.status < FIRST_FINAL_STATUS:
            return
        self.keeps = self._parser.should_keep_alive()
        self._finish()
        if self.on_whole is not None:
            self.on_whole()

    def _finish(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result((self._head, b"".join(self._parts)))

    # -- one request -------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Whether a request can be written."""
        return self._transport is not None and not self._transport.is_closing()

    def send(
        self,
        request: bytes,
        on_stream: OnStream | None,
        seconds: float | None,
        large: MessageSpill | None = None,
    ) -> "asyncio.Future[tuple[Head, bytes]]":
        """Write a request and return the future of its response. Call `clear` after the response.

        The pieces of an event stream are passed to `on_stream`. A body that is too large for memory
        is stored in `large`; `completed` then returns its rest. The future fails with
        `BrokenError`, `TooLargeError`, or with `TimeoutError` if the response is not complete
        within `seconds`.

        Raises:
            NotSentError: the connection was closed before any byte was written.

        """
        if self._transport is None or self._transport.is_closing():
            raise NotSentError("the connection was closed")
        self._parts, self._size, self._until_closed, self.keeps = [], 0, False, False
        self._fields.clear()  # trailers of the previous response
        self._on_stream = on_stream
        if large is not None:
            self._large, large.flow = large, self._throttle
        self._bodiless = request.startswith(b"HEAD ")
        self._waiting = waiting = self._loop.create_future()
        self._transport.write(request if self._proxy is None else _absolute(request, self._proxy))
        if seconds is None:
            self._deadline = inf
        else:
            self._deadline = monotonic() + seconds
            # A timer that fires before the deadline restarts itself, so it can stay.
            if self._timer is None or self._timer_at > self._deadline:
                self._start_timer(seconds)
        return waiting

    async def completed(self, response: tuple[Head, bytes]) -> tuple[Head, bytes]:
        """Wait until a large body is stored, and return the response with the rest of the body."""
        if self.spill is None or self._large is None:
            return response
        spill, self.spill = self.spill, None
        return response[0], await self._large.ended(spill)

    def clear(self) -> None:
        """End the request in progress, even if it has no response."""
        if self.spill is not None and self._large is not None:
            self._large.abandon(self.spill)
        self._waiting = self._on_stream = self._large = self.spill = None

    @property
    def reusable(self) -> bool:
        """Whether the connection can be used for another request after the last response."""
        return self.keeps and self.usable

    def close(self) -> None:
        """Close the connection immediately."""
        if self._transport is not None:
            self._transport.abort()

    def _begin_spill(self, large: MessageSpill) -> None:
        self.spill = large.begin()
        parts, self._parts = self._parts, []
        for part in parts:
            self.spill.feed(part)

    def _throttle(self, go: bool) -> None:  # noqa: FBT001 - as in asyncio's flow control
        """Pause or resume reading."""
        if self._transport is not None and not self._transport.is_closing():
            (self._transport.resume_reading if go else self._transport.pause_reading)()

    def _start_timer(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._check_deadline)
        self._timer_at = monotonic() + seconds

    def _check_deadline(self) -> None:
        """Fail the request if its deadline has passed. A stream's progress extends the deadline."""
        self._timer = None
        if self._waiting is None or self._deadline == inf:
            return
        seconds = self._deadline - monotonic()
        if seconds <= 0:
            left: Callable[[], float] | None = getattr(self._on_stream, "left", None)
            seconds = 0.0 if left is None else left()
        if seconds > 0:
            self._start_timer(seconds)
        else:
            self._fail(TimeoutError())

    def _fail(self, error: Exception) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)


def _absolute(request: bytes, proxy: DialedSocket) -> bytes:
    """Return the request with an absolute URL, as a proxy for plain requests requires it."""
    verb, _, rest = request.partition(b" ")
    line, _, rest = rest.partition(b"\r\n")
    return b"%b %b%b\r\n%b%b" % (verb, proxy.before, line, proxy.headers, rest)


class Pool:
    """Reusable connections to one host. The server's bulkhead limits their number."""

    def __init__(self, url: str, way: Dialer, protocol: type[Connection] = Connection) -> None:
        self._url = url
        self._protocol = protocol
        self._way = way
        self._idle: deque[Connection] = deque()
        self._ending: set[Connection] = set()
        self._closed = False

    async def request(
        self,
        request: bytes,
        on_stream: OnStream | None = None,
        seconds: float | None = DEFAULT_SECONDS,
        large: MessageSpill | None = None,
        on_written: Callable[[], None] = lambda: None,
    ) -> tuple[Head, bytes]:
        """Send a request, call `on_written`, and return the response.

        Raises:
            NotSentError: no connection could be opened. Nothing was sent.
            BrokenError, TooLargeError, TimeoutError: see `Connection.send`.

        """
        connection = self._take()
        if connection is None:
            began = monotonic()
            connection = await self._connect(seconds or CONNECT_SECONDS)
            seconds = None if seconds is None else seconds - (monotonic() - began)
        try:
            sent = connection.send(request, on_stream, seconds, large)
            on_written()
            response = await sent
            if connection.spill is not None:
                response = await connection.completed(response)
        except BaseException:
            # On cancellation too: a late response must not be read as the next response.
            connection.close()
            raise
        finally:
            connection.clear()
        if not connection.keeps and connection.usable and response[0].is_stream:
            self._await_end(connection)
        else:
            self._put_back(connection)
        return response

    def close(self) -> None:
        """Close the idle connections. Other connections are closed when their request ends."""
        self._closed = True
        for connection in (*self._idle, *self._ending):
            connection.close()
        self._idle.clear()

    def _put_back(self, connection: Connection) -> None:
        """Store a connection for the next request if it is reusable. Close it otherwise."""
        connection.on_whole = None
        if self._closed or not connection.reusable or len(self._idle) >= MAX_IDLE:
            connection.close()
            return
        connection.idle_since = monotonic()
        self._idle.append(connection)

    def _await_end(self, connection: Connection) -> None:
        """Reuse a connection after the end of a reply's stream; close it after a time limit."""
        if self._closed:
            connection.close()
            return

        def close_late() -> None:
            self._ending.discard(connection)
            connection.close()

        def reuse() -> None:
            timer.cancel()
            self._ending.discard(connection)
            self._put_back(connection)

        timer = asyncio.get_running_loop().call_later(END_SECONDS, close_late)
        self._ending.add(connection)
        connection.on_whole = reuse

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and monotonic() - connection.idle_since < IDLE_SECONDS:
                return connection
            connection.close()
        return None

    async def _connect(self, seconds: float) -> Connection:
        try:
            async with asyncio.timeout(timeout := min(seconds, CONNECT_SECONDS)):
                return await self._connection(await self._way.connected(self._url))
        except TimeoutError as error:
            raise NotSentError(f"no connection within {timeout:.3g} s") from error
        except EgressError as error:
            raise NotSentError(str(error)) from error
        except OSError as error:
            raise NotSentError(error.strerror or str(error)) from error

    async def _connection(self, dialed: DialedSocket) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: self._protocol(loop, dialed if dialed.before else None),
            sock=dialed.socket,
            ssl=dialed.context,
            server_hostname=dialed.name,
        )
        return connection
