"""The HTTP server: uvicorn on httptools, with the bounds on a request's head it does not set."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from toolbus_common.errors import UnavailableError
from toolbus_common.metrics import REFUSED_REQUESTS
from toolbus_common.serving import NotServedError, serving
from toolbus_ingress.eventstream import GONE, LEFT
from toolbus_ingress.guard import LARGEST_HEAD

HEAD_SECONDS = 10.0
DRAIN_SECONDS = 25
BACKLOG = 2048

_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"connection: close\r\ncontent-length: 0\r\n\r\n"
)


_HEAD = re.compile(rb"HTTP/1\.1 [2-5]")  # an interim answer (1xx) has no body to wait for


class _WholeAnswers:
    """A transport that keeps an answer's head until its body follows: one system call, not two.

    uvicorn writes them apart; the write is a tenth of what a call costs at the edge.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._head = b""
        self.get_extra_info = transport.get_extra_info
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def write(self, data: bytes) -> None:
        """Write, or keep a head."""
        if not self._head and _HEAD.match(data) is not None and data.endswith(b"\r\n\r\n"):
            self._head = data
            return
        head, self._head = self._head, b""
        self._transport.write(head + data if head else data)

    def flush(self) -> None:
        """Write a head no body follows: the answer to HEAD has none."""
        if self._head:
            self._transport.write(self._head)
            self._head = b""

    def close(self) -> None:
        """Write what is kept, and close."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class BoundedProtocol(HttpToolsProtocol):
    """Closes connections whose request head grows too large or takes too long to arrive."""

    _head_bytes = 0
    _in_head = True
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start the clock: a connection that says nothing is closed too."""
        super().connection_made(_WholeAnswers(transport))  # type: ignore[arg-type]
        self._timer = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock, and tell whoever works for this client that it is gone."""
        self._stop_clock()
        scope: Any = getattr(self, "scope", None)
        if scope:
            scope[LEFT] = True
            gone = scope.pop(GONE, None)
            if gone is not None:
                gone()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to an unfinished head."""
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > LARGEST_HEAD:
                REFUSED_REQUESTS.labels("headers").inc()
                self.transport.write(_TOO_LARGE)
                self.transport.close()
            elif self._timer is None:
                self._timer = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        """Its head is whole."""
        self._in_head = False
        if self._timer is not None:
            self._stop_clock()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """The answer is whole: nothing of it is kept any longer."""
        self.transport.flush()  # type: ignore[attr-defined]
        super().on_response_complete()

    def _stop_clock(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.close()


@asynccontextmanager
async def listening(app: Any, host: str, port: int) -> AsyncIterator[None]:
    """Serve the application. Raises `UnavailableError` when the port is taken.

    On leaving, requests under way are answered before the connections close.
    """
    try:
        async with serving(
            app,
            host,
            port,
            http=BoundedProtocol,
            backlog=BACKLOG,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        ):
            yield
    except NotServedError as error:
        reason = f"Cannot listen on {host}:{port}; is the port taken?"
        raise UnavailableError(reason) from error
