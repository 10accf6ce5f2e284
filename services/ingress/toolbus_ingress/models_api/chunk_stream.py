"""Writer of a streamed response: chunks of an event stream, passed on as they arrive."""

import asyncio
from collections import deque
from collections.abc import Callable

from toolbus_common.contracts import CallNotification, Notification
from toolbus_common.contracts.model_calls import CHUNK
from toolbus_ingress.sessions.sse_writer import Send

LARGEST_UNREAD = 8 * 1024 * 1024  # bytes that a client may leave unread
_LARGEST_WRITE = 64 * 1024  # more bytes would only move from here to the connection
_EVENT_END = b"\n\n"
_EVENT_ENDS = (_EVENT_END, b"\r\n\r\n")
_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)


class ChunkStream:
    """One streamed response. Its head is sent with the first complete event.

    Only complete events are written, so that an error can follow as an event of its own. The
    provider cannot be slowed down: `on_overflow` is called once if the client leaves more than
    `LARGEST_UNREAD` bytes unread, and these bytes and all later chunks are dropped.
    """

    __slots__ = (
        "_ended", "_events", "_news", "_on_overflow", "_partial", "_send", "_unread",
        "_writer", "headers", "overflowed",
    )  # fmt: skip

    def __init__(
        self,
        send: Send,
        headers: tuple[tuple[bytes, bytes], ...],
        on_overflow: Callable[[], None],
    ) -> None:
        self._send = send
        self.headers = headers  # sent with the first event
        self._on_overflow = on_overflow
        self._events: deque[bytes] = deque()
        self._partial = bytearray()  # the beginning of an event
        self._unread = 0  # bytes in `_events` and `_partial`
        self._writer: asyncio.Task[None] | None = None
        self._news: asyncio.Future[None] | None = None
        self._ended = False
        self.overflowed = False

    @property
    def started(self) -> bool:
        """Whether the response has started, so that the status can no longer change."""
        return self._writer is not None

    def put(self, notification: CallNotification) -> None:
        """Accept a chunk; other notifications and chunks after an overflow are ignored."""
        if type(notification) is not Notification or notification.method != CHUNK:
            return
        chunk = notification.body
        if self.overflowed or not chunk:
            return
        self._unread += len(chunk)
        if self._unread > LARGEST_UNREAD:
            self._overflow()
            return
        if self._partial or not chunk.endswith(_EVENT_END):
            chunk = self._complete(chunk)
            if not chunk:
                return
        self._write(chunk)

    async def end(self, last: bytes = b"") -> None:
        """Write what is left and then `last`, end the response, and wait until it is passed on.

        With `last`, which is an event that reports a failure, an incomplete event is dropped.
        """
        if self._partial and not last:
            last = bytes(self._partial)
        self._ended = True
        self._write(last)
        if self._writer is not None:
            await self._writer

    def _write(self, data: bytes) -> None:
        self._events.append(data)
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._run())
        elif self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def _run(self) -> None:
        send, events = self._send, self._events
        loop = asyncio.get_running_loop()
        headers = [*_HEADERS, *self.headers]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        more = True
        while more:
            while not events:
                self._news = loop.create_future()
                await self._news
            data = events.popleft()
            while events and len(data) < _LARGEST_WRITE:
                data += events.popleft()
            self._unread -= len(data)
            more = not self._ended or bool(events)
            await send({"type": "http.response.body", "body": data, "more_body": more})

    def _complete(self, chunk: bytes) -> bytes:
        """Return the complete events up to the end of this chunk, and store the rest."""
        partial = self._partial
        start = max(0, len(partial) - 3)  # the mark of an event's end may be split
        partial += chunk
        ends = [at + len(mark) for mark in _EVENT_ENDS if (at := partial.rfind(mark, start)) >= 0]
        if not ends:
            return b""
        end = max(ends)
        events = bytes(partial[:end])
        del partial[:end]
        return events

    def _overflow(self) -> None:
        self.overflowed = True
        self._events.clear()
        self._partial.clear()
        self._unread = 0
        self._on_overflow()
