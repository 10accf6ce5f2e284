"""HTTP/1.1 client of one upstream: a keep-alive pool on asyncio and httptools, with limits."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

import httptools

from toolbus_common.egress import EgressError
from toolbus_common.errors import ToolbusError
from toolbus_executor.results.large.spill import SpillBuffer
from toolbus_executor.results.large.spill_registry import MessageSpill
from toolbus_executor.transport.dialer import DialedSocket, Dialer

# Servers commonly close after 5 s; closing first avoids requests on closed connections.
IDLE_SECONDS = 4.0
CONNECT_SECONDS = 5.0
DEFAULT_SECONDS = 20.0
LARGEST_BODY = 7 * 1024 * 1024  # bytes; a result must still fit a message on the bus
LARGEST_HELD = 6 * 1024 * 1024  # bytes of a response, until it is spilled
LARGEST_HEAD = 64 * 1024
MAX_IDLE = 64
END_SECONDS = 1.0  # what a stream may take to end after its reply
FIRST_FINAL_STATUS = 200  # lower ones are interim responses (100, 103)


class NotSentError(Exception):
    """The upstream could not be reached; no byte was written."""


class BrokenError(Exception):
    """The connection broke, or the response is not HTTP, after the request was written."""


class TooLargeError(Exception):
    """The response exceeds its limit."""


@dataclass(slots=True)
class Head:
    """Status and headers (lower-case names) of a response."""

    status: int
    headers: dict[bytes, bytes]

    @property
    def is_stream(self) -> bool:
        """Whether the body is an event stream."""
        return self.headers.get(b"content-type", b"").startswith(b"text/event-stream")


_NO_HEAD = Head(0, {})

# Takes a piece of a stream, and an empty one when it begins; returns True when it is done. It may
# have a method `left`, called on timeout, that returns the seconds to wait on.
OnStream = Callable[[bytes], bool]


class Connection(asyncio.Protocol):
    """One connection. It carries one request at a time; a response is whole or streamed."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._waiting: asyncio.Future[tuple[Head, bytes]] | None = None
        self._on_stream: OnStream | None = None
        self._headers: dict[bytes, bytes] = {}
        self._head = _NO_HEAD
        self._streams = False
        self._parts: list[bytes] = []
        self._size = 0
        self._large: MessageSpill | None = None
        self._spill: SpillBuffer | None = None
        self._keeps = False
        self._until_closed = False  # a body without a length ends with the connection
        self._bodiless = False  # the response to HEAD announces a body that does not follow
        self._timer: asyncio.TimerHandle | None = None
        self.idle_since = 0.0
        self.on_whole: Callable[[], None] | None = None  # called once a stream has ended too

    # -- asyncio -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        """End the request in progress."""
        if exc is None and self._until_closed:
            self._finish()
        self._fail(BrokenError(str(exc) if exc else "the upstream closed the connection"))
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Parse received bytes."""
        if self._waiting is None and self.on_whole is None:
            self.close()  # unrequested bytes must not become the next response
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, TooLargeError) as error:
            cause = error.__context__ if isinstance(error, httptools.HttpParserError) else error
            known = cause if isinstance(cause, TooLargeError | ToolbusError) else None
            self._fail(known or BrokenError(str(error)))
            self.close()

    # -- httptools ---------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Start a response."""
        self._headers, self._parts, self._size, self._until_closed = {}, [], 0, False
        if self._waiting is None or self._waiting.done():
            self.close()  # a second response to one request

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a header."""
        self._grow(len(name) + len(value), LARGEST_HEAD)
        self._headers[name.lower()] = value.strip()

    def on_headers_complete(self) -> None:
        """Start the body."""
        self._size = 0
        self._until_closed = not (
            b"content-length" in self._headers or b"transfer-encoding" in self._headers
        )
        self._head = head = Head(self._parser.get_status_code(), self._headers)
        self._streams = self._on_stream is not None and head.is_stream
        if self._bodiless and head.status >= FIRST_FINAL_STATUS:
            self._finish()
        elif self._streams and self._on_stream is not None:
            self._on_stream(b"")  # it has begun, and may send no data for long

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if self._streams and self._on_stream is not None:
            if self._on_stream(body):
                self._finish()
        elif self._spill is not None:
            self._spill.feed(body)
        else:
            self._parts.append(body)
            self._grow(len(body), LARGEST_BODY)
            if self._size > LARGEST_HELD and self._large is not None:
                self._begin_spill(self._large)

    def on_message_complete(self) -> None:
        """Finish the response."""
        self._until_closed = False
        if self._head.status < FIRST_FINAL_STATUS:
            return
        self._keeps = self._parser.should_keep_alive()
        self._finish()
        if self.on_whole is not None:
            self.on_whole()

    def _finish(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result((self._head, b"".join(self._parts)))

    # -- one request -------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Whether another request may be written."""
        return self._transport is not None and not self._transport.is_closing()

    async def request(
        self,
        request: bytes,
        on_stream: OnStream | None,
        seconds: float | None,
        large: MessageSpill | None = None,
    ) -> tuple[Head, bytes]:
        """Write a request and return its response; an event stream goes to `on_stream`.

        A body that is too large goes to `large`, and the response has the rest that `large`
        returns.

        Raises:
            NotSentError: the connection was closed before any byte was written.
            BrokenError, TooLargeError: afterwards.
            TimeoutError: no whole response within `seconds`.

        """
        if self._transport is None or self._transport.is_closing():
            raise NotSentError("the connection was closed")
        self._keeps = False
        self._on_stream = on_stream
        if large is not None:
            self._large, large.flow = large, self._throttle
        self._bodiless = request.startswith(b"HEAD ")
        self._waiting = self._loop.create_future()
        self._transport.write(request)
        # A plain timer costs a quarter of asyncio.timeout, and every call needs one.
        if seconds is not None:
            self._timer = self._loop.call_later(seconds, self._time_out)
        try:
            answer = await self._waiting
            if self._spill is None or large is None:
                return answer
            spill, self._spill = self._spill, None
            return answer[0], await large.ended(spill)
        finally:
            if self._spill is not None and large is not None:
                large.abandon(self._spill)
            self._waiting = self._on_stream = self._large = self._spill = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    @property
    def reusable(self) -> bool:
        """Whether the connection can be used for another request after the last response."""
        return self._keeps and self.usable

    def close(self) -> None:
        """Close the connection immediately."""
        if self._transport is not None:
            self._transport.abort()

    def _grow(self, size: int, maximum: int) -> None:
        self._size += size
        if self._size > maximum:
            raise TooLargeError(f"the response exceeds {maximum} bytes")

    def _begin_spill(self, large: MessageSpill) -> None:
        self._spill = large.begin()
        parts, self._parts = self._parts, []
        for part in parts:
            self._spill.feed(part)

    def _throttle(self, go: bool) -> None:  # noqa: FBT001 - as in asyncio's flow control
        """Pause or resume reading."""
        if self._transport is not None and not self._transport.is_closing():
            (self._transport.resume_reading if go else self._transport.pause_reading)()

    def _time_out(self) -> None:
        left: Callable[[], float] | None = getattr(self._on_stream, "left", None)
        seconds = 0.0 if left is None else left()
        if seconds > 0:
            self._timer = self._loop.call_later(seconds, self._time_out)
        else:
            self._fail(TimeoutError())

    def _fail(self, error: Exception) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)


class ForwardingConnection(Connection):
    """A connection to a proxy that forwards plain requests: it needs absolute URLs."""

    def __init__(self, loop: asyncio.AbstractEventLoop, dialed: DialedSocket) -> None:
        super().__init__(loop)
        self._dialed = dialed

    async def request(
        self,
        request: bytes,
        on_stream: OnStream | None,
        seconds: float | None,
        large: MessageSpill | None = None,
    ) -> tuple[Head, bytes]:
        """Send a request as `Connection.request` does, with an absolute URL."""
        verb, _, rest = request.partition(b" ")
        line, _, rest = rest.partition(b"\r\n")
        absolute_request = b"%b %b%b\r\n%b%b" % (
            verb,
            self._dialed.before,
            line,
            self._dialed.headers,
            rest,
        )
        return await super().request(absolute_request, on_stream, seconds, large)


class Pool:
    """Connections to one host, reused after use; the server's bulkhead limits their number."""

    def __init__(self, url: str, way: Dialer) -> None:
        self._url = url
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
    ) -> tuple[Head, bytes]:
        """Send one request on a free or new connection; see `Connection.request`."""
        connection = self._take()
        if connection is None:
            began = monotonic()
            connection = await self._connect(seconds or CONNECT_SECONDS)
            seconds = None if seconds is None else seconds - (monotonic() - began)
        try:
            answer = await connection.request(request, on_stream, seconds, large)
        except BaseException:
            # Also when cancelled: a late response must not reach the next request.
            connection.close()
            raise
        if connection.reusable:
            self._put_back(connection)
        elif connection.usable and answer[0].is_stream:
            self._await_end(connection)
        else:
            connection.close()
        return answer

    def close(self) -> None:
        """Close idle connections. Connections in use close when their request ends."""
        self._closed = True
        for connection in (*self._idle, *self._ending):
            connection.close()
        self._idle.clear()

    def _put_back(self, connection: Connection) -> None:
        connection.on_whole = None
        if self._closed or not connection.reusable or len(self._idle) >= MAX_IDLE:
            connection.close()
            return
        connection.idle_since = monotonic()
        self._idle.append(connection)

    def _await_end(self, connection: Connection) -> None:
        """Keep a connection whose reply is complete until its stream ends, for a limited time."""
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
        timeout = min(seconds, CONNECT_SECONDS)
        try:
            async with asyncio.timeout(timeout):
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
            lambda: ForwardingConnection(loop, dialed) if dialed.before else Connection(loop),
            sock=dialed.socket,
            ssl=dialed.context,
            server_hostname=dialed.name,
        )
        return connection
