"""Writer of a streamed response: chunks of an event stream, passed on as they arrive."""

import asyncio
from collections import deque
from collections.abc import Callable

from toolbus_common.contracts import CallNotification, Notification
from toolbus_common.contracts.model_calls import CHUNK
from toolbus_common.model_api.event_stream import HEADERS, EventSplitter
from toolbus_ingress.sessions.sse_writer import Send

LARGEST_UNREAD = 8 * 1024 * 1024  # bytes that a client may leave unread
_LARGEST_WRITE = 64 * 1024  # more bytes would only move from here to the connection


class ChunkStream:
    """One streamed response. Its head is sent with the first complete event.

    Only complete events are written, so that an error can follow as an event of its own. The
    provider cannot be slowed down: `on_overflow` is called once if the client leaves more than
    `LARGEST_UNREAD` bytes unread, and these bytes and all later chunks are dropped.
    """

    __slots__ = (
        "_ended", "_events", "_headers", "_news", "_on_overflow", "_send", "_splitter", "_unread",
        "_writer", "overflowed",
    )  # fmt: skip

    def __init__(
        self,
        send: Send,
        headers: tuple[tuple[bytes, bytes], ...],
        on_overflow: Callable[[], None],
    ) -> None:
        self._send = send
        self._headers = headers
        self._on_overflow = on_overflow
        self._events: deque[bytes] = deque()
        self._splitter = EventSplitter()
        self._unread = 0  # bytes in `_events` and of an incomplete event
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
        if events := self._splitter.feed(chunk):
            self._write(events)

    async def end(self, last: bytes = b"") -> None:
        """Write what is left and then `last`, end the response, and wait until it is passed on.

        With `last`, which is an event that reports a failure, an incomplete event is dropped.
        """
        last = last or self._splitter.take_rest()
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
        headers = [*HEADERS, *self._headers]
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

    def _overflow(self) -> None:
        self.overflowed = True
        self._events.clear()
        self._splitter.take_rest()
        self._unread = 0
        self._on_overflow()
