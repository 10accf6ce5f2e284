"""Writer of a streamed response: chunks of an event stream, passed on as they arrive."""

import asyncio
from collections import deque
from collections.abc import Callable

from toolbus_common.contracts import CallNotification, Notification
from toolbus_common.contracts.model_calls import CHUNK
from toolbus_common.model_api.event_stream import HEADERS, EventSplitter
from toolbus_ingress.sessions.sse_writer import Send

LARGEST_UNREAD = 8 * 1024 * 1024  # bytes that a client may leave unread
_LARGEST_WRITE = 64 * 1024  # a larger write would only be buffered again
KEEP_ALIVE_SECONDS = 15.0  # shorter than the time after which proxies close a silent connection
_COMMENT = b": ping\n\n"


class ChunkStream:
    """One streamed response. Its head is sent with the first complete event.

    Only complete events are written, so that an error can follow as an event of its own. The
    provider cannot be slowed down: `on_cut` is called once if the client leaves more than
    `LARGEST_UNREAD` bytes unread, and these bytes and all later chunks are dropped. `on_cut` is
    also called if a chunk was lost on the bus, and all later chunks are dropped. While the provider
    is silent, comments keep the client's connection open.
    """

    __slots__ = (
        "_ended",
        "_events",
        "_keep_alive",
        "_news",
        "_on_cut",
        "_parts",
        "_send",
        "_silent",
        "_splitter",
        "_unread",
        "_writer",
        "headers",
        "lost",
        "overflowed",
    )  # fmt: skip

    def __init__(
        self,
        send: Send,
        headers: tuple[tuple[bytes, bytes], ...],
        on_cut: Callable[[], None],
    ) -> None:
        self._send = send
        self.headers = headers  # sent with the first event
        self._on_cut = on_cut
        self._parts = 0  # received
        self._silent = True  # nothing was written since the last check
        self._keep_alive: asyncio.TimerHandle | None = None
        self._events: deque[bytes] = deque()
        self._splitter = EventSplitter()
        self._unread = 0  # bytes in `_events` and of an incomplete event
        self._writer: asyncio.Task[None] | None = None
        self._news: asyncio.Future[None] | None = None
        self._ended = False
        self.overflowed = False
        self.lost = False

    @property
    def is_cut(self) -> bool:
        """Whether chunks were dropped, so that the stream cannot end normally."""
        return self.overflowed or self.lost

    @property
    def started(self) -> bool:
        """Whether the response has started, so that the status can no longer change."""
        return self._writer is not None

    def put(self, notification: CallNotification) -> None:
        """Accept a chunk; other notifications and chunks after a cut are ignored."""
        if type(notification) is not Notification or notification.method != CHUNK:
            return
        chunk = notification.body
        self._parts += 1
        if notification.number and notification.number != self._parts:
            self.check(notification.number)
        if self.overflowed or self.lost or not chunk:
            return
        self._unread += len(chunk)
        if self._unread > LARGEST_UNREAD:
            self._overflow()
            return
        if events := self._splitter.feed(chunk):
            self._write(events)

    def check(self, parts: int) -> None:
        """Cut the stream if fewer than `parts` chunks have arrived."""
        if parts != self._parts and not self.lost:
            self.lost = True
            self._on_cut()

    async def end(self, last: bytes = b"") -> None:
        """Write what is left and then `last`, end the response, and wait until all is sent.

        With `last`, which is an event that reports a failure, an incomplete event is dropped.
        """
        last = last or self._splitter.take_rest()
        self._ended = True
        if self._keep_alive is not None:
            self._keep_alive.cancel()
        self._write(last)
        if self._writer is not None:
            await self._writer

    def _write(self, data: bytes) -> None:
        self._events.append(data)
        self._silent = False
        if self._writer is None:
            loop = asyncio.get_running_loop()
            self._writer = loop.create_task(self._run())
            if not self._ended:
                self._keep_alive = loop.call_later(KEEP_ALIVE_SECONDS, self._keep)
        elif self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def _run(self) -> None:
        send, events = self._send, self._events
        loop = asyncio.get_running_loop()
        headers = [*HEADERS, *self.headers]
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

    def _keep(self) -> None:
        """Write a comment if nothing was written since the last check, and check again later."""
        if self._silent and not self._events:
            self._unread += len(_COMMENT)
            self._write(_COMMENT)
        self._silent = True
        loop = asyncio.get_running_loop()
        self._keep_alive = loop.call_later(KEEP_ALIVE_SECONDS, self._keep)

    def _overflow(self) -> None:
        self.overflowed = True
        self._events.clear()
        self._splitter.take_rest()
        self._unread = 0
        self._on_cut()
