"""Writer of server-sent events. The first event that is written starts the HTTP response."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from toolbus_common.http_server.protocol import GONE, LEFT
from toolbus_common.model_api.event_stream import HEADERS
from toolbus_ingress.sessions.event_log import Entry, Reader

Send = Callable[[dict[str, Any]], Awaitable[None]]
DATA = b"data: "
KEEP_ALIVE_SECONDS = 15.0


class EventStream:
    """One streamed response. Sources: WHATWG HTML, 9.2; MCP 2026-07-28, transports."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def start(self) -> None:
        """Send the head and a comment: a proxy may delay a head without a body. Idempotent."""
        if not self.started:
            self.started = True
            await self._send({"type": "http.response.start", "status": 200, "headers": [*HEADERS]})
            await self._write(b": \n\n", more=True)

    async def event(self, message: bytes, event_id: bytes = b"", *, more: bool = True) -> None:
        """Send one message, which is JSON without line breaks."""
        await self.start()
        head = b"id: %b\n" % event_id if event_id else b""
        await self._write(b"%bevent: message\n%b%b\n\n" % (head, DATA, message), more=more)

    async def mark(self, event_id: bytes, retry: int) -> None:
        """Send an event id without a message; the client reconnects after `retry` ms."""
        await self.start()
        await self._write(b"id: %b\nretry: %d\n%b\n\n" % (event_id, retry, DATA), more=True)

    async def endpoint(self, post_url: str) -> None:
        """Send the URL to which messages are posted (HTTP+SSE of 2024-11-05)."""
        await self.start()
        await self._write(b"event: endpoint\n%b%b\n\n" % (DATA, post_url.encode()), more=True)

    async def comment(self) -> None:
        """Send a comment, so that proxies do not close an idle connection."""
        await self._write(b": \n\n", more=True)

    async def end(self) -> None:
        """End the response."""
        await self.start()
        await self._write(b"", more=False)

    async def _write(self, data: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})


async def write_events(reader: Reader, stream: EventStream, last: bytes = b"") -> None:
    """Write a log's entries until the reader finishes. If the log has ended, then write `last`."""
    event_log, name = reader.event_log, reader.event_log.name.encode()
    try:
        await stream.start()  # a client that resumes early waits for the head too
        while (entry := await _next_entry(reader, stream)) is not None:
            number, message = entry
            event_id = b"%b-%d" % (name, number) if name else b""
            if not message:
                await stream.mark(event_id, event_log.retry)
                continue
            more = bool(last) or not reader.finished
            await stream.event(message, event_id, more=more)
            if not more:
                return
        await (stream.event(last, more=False) if last and event_log.ended else stream.end())
    finally:
        reader.leave()


async def serve_reader(
    scope: MutableMapping[str, Any], reader: Reader, stream: EventStream, last: bytes = b""
) -> None:
    """Write events as `write_events` does, and stop when the client disconnects."""
    watch = DisconnectWatch(scope, reader.leave)
    try:
        await write_events(reader, stream, last)
    finally:
        watch.stop()


async def _next_entry(reader: Reader, stream: EventStream) -> Entry | None:
    while (entry := reader.take()) is None:
        try:
            async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                return await reader.next()
        except TimeoutError:
            await stream.comment()
    return entry


class DisconnectWatch:
    """Calls `on_disconnect` once if the client disconnects before `stop`."""

    def __init__(self, scope: MutableMapping[str, Any], on_disconnect: Callable[[], None]) -> None:
        self._scope = scope
        if scope.get(LEFT):  # the client disconnected before the watch started
            on_disconnect()
        else:
            scope[GONE] = on_disconnect

    def stop(self) -> None:
        """Stop watching, because the answer is complete."""
        self._scope.pop(GONE, None)
