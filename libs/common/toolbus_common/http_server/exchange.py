"""One HTTP request and its response, as an ASGI application receives and sends them."""

import asyncio
import logging
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolbus_common.http_server.protocol import HttpConnection

log = logging.getLogger(__name__)

App = Callable[[Any, Any, Any], Awaitable[None]]

_UNKNOWN_LENGTH = math.inf
_STATUS_LINES = {each.value: f"HTTP/1.1 {each} {each.phrase}\r\n".encode() for each in HTTPStatus}
_WITHOUT_BODY = (204, 304)
# RFC 9110, 5.1 and 5.5: a name is a token, and a value has no control characters but tabs.
_HEADERS = re.compile(rb"(?:[!#-'*+\-.^_`|~0-9A-Za-z]+: [\t\x20-\x7e\x80-\xff]*\r\n)*")
_CLOSE = b"connection: close\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_ERROR = b"Internal Server Error"
_ERROR_HEADERS = [
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"content-length", b"%d" % len(_ERROR)),
    (b"connection", b"close"),
]


class Exchange:
    """A request and its response.

    The connection adds received parts of the body to `parts`, clears `more_body` after the last
    one, and calls `wake`. The head of a response is written together with the first part of its
    body, because each write is a system call.
    """

    __slots__ = (
        "_chunked", "_connection", "_head", "_news", "_unsent", "_waiter", "awaits_continue",
        "disconnected", "keep_alive", "more_body", "parts", "response_complete",
        "response_started", "scope", "size",
    )  # fmt: skip

    def __init__(
        self,
        connection: "HttpConnection",
        scope: dict[str, Any],
        *,
        keep_alive: bool,
        awaits_continue: bool,
    ) -> None:
        self._connection = connection
        self.scope = scope
        self.keep_alive = keep_alive
        self.awaits_continue = awaits_continue  # the client sends the body after a 100 response
        self.disconnected = False
        self.parts: list[bytes] = []  # of the body, not yet received by the application
        self.size = 0  # of `parts`, in bytes
        self.more_body = True
        self._news = False  # since the application's last `receive`
        self._waiter: asyncio.Future[None] | None = None
        self.response_started = self.response_complete = False
        self._head = b""
        self._chunked = False
        self._unsent = 0.0  # bytes of the response's body that the head has announced

    async def run(self, app: App) -> None:
        """Run the application. A failure is logged, and ends the response or the connection."""
        try:
            await app(self.scope, self.receive, self.send)
        except BaseException:
            log.exception("http.handler_failed")
            await self._fail()
        else:
            if not self.response_complete and not self.disconnected:
                log.error("http.response_incomplete")
                await self._fail()

    async def _fail(self) -> None:
        if self.response_started:
            self._connection.close()
            return
        await self.send({"type": "http.response.start", "status": 500, "headers": _ERROR_HEADERS})
        await self.send({"type": "http.response.body", "body": _ERROR})

    def wake(self) -> None:
        """Notify the application of received data, of the request's end, or of a disconnection."""
        self._news = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def receive(self) -> dict[str, Any]:
        """Return the next part of the body, or the disconnection of the client (ASGI)."""
        connection = self._connection
        if self.awaits_continue:
            self.awaits_continue = False
            connection.write(_CONTINUE)
        if not self.disconnected and not self.response_complete:
            if not self._news:
                connection.resume_reading()
                self._waiter = connection.loop.create_future()
                await self._waiter
            self._news = False
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        body = b"".join(self.parts)
        self.parts.clear()
        self.size = 0
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send the head or a part of the body (ASGI). Data for a disconnected client is dropped.

        Raises:
            RuntimeError: the message is not allowed here, has an invalid header, or does not agree
                with the announced length.

        """
        connection = self._connection
        if connection.write_paused and not self.disconnected:
            await asyncio.shield(connection.drained())  # other senders may wait for it too
        if self.disconnected:
            return
        if not self.response_started:
            self._start(message)
            return
        if self.response_complete or message["type"] != "http.response.body":
            raise RuntimeError(f"Unexpected ASGI message '{message['type']}'.")
        more = message.get("more_body", False)
        connection.write(self._head + self._framed(message.get("body", b""), more=more))
        self._head = b""
        if not more:
            self.response_complete = True
            self.wake()
            if not self.keep_alive:
                connection.close()
            connection.complete(self)

    def _start(self, message: Mapping[str, Any]) -> None:
        """Build the head; the first part of the body is written with it."""
        if message["type"] != "http.response.start":
            raise RuntimeError(
                f"Unexpected ASGI message '{message['type']}' before 'http.response.start'."
            )
        status, closes = message["status"], False
        self._unsent = _UNKNOWN_LENGTH
        lines = []
        for key, value in message.get("headers", ()):
            name = key.lower()
            if name == b"content-length":
                if status == HTTPStatus.NO_CONTENT:  # which has no length (RFC 9110, 8.6)
                    continue
                self._unsent = int(value)
            elif name == b"transfer-encoding":
                self._chunked = value.lower() == b"chunked"
            elif name == b"connection":
                closes = b"close" in value.lower()
            lines.append(b"%b: %b\r\n" % (name, value))
        head = b"".join(lines)
        if _HEADERS.fullmatch(head) is None or head.count(b"\n") != len(lines):
            raise RuntimeError("A header of the response has an invalid name or value.")
        if status in _WITHOUT_BODY or self.scope["method"] == "HEAD":
            self._unsent = 0
        elif self._unsent == _UNKNOWN_LENGTH and not self._chunked:
            self._chunked = self.scope["http_version"] == "1.1"
            if self._chunked:
                head += b"transfer-encoding: chunked\r\n"
        self.keep_alive = self.keep_alive and not (
            closes or self.more_body or self._connection.ends
        )
        if not self.keep_alive and not closes:
            head += _CLOSE
        line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
        self.response_started, self.awaits_continue = True, False
        self._head = b"%b%b\r\n" % (line, head)

    def _framed(self, body: bytes, *, more: bool) -> bytes:
        """Return a part of the body in its form on the wire."""
        if self.scope["method"] == "HEAD":
            return b""
        if self._chunked:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            return chunk if more else chunk + b"0\r\n\r\n"
        self._unsent -= len(body)
        if self._unsent < 0 or (self._unsent and not more and self._unsent != _UNKNOWN_LENGTH):
            raise RuntimeError("The response's body does not have the announced length.")
        return body
