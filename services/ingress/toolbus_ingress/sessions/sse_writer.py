"""An answer as server-sent events: begun only once there is something to tell."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from toolbus_common.http_server.protocol import GONE, LEFT
from toolbus_ingress.sessions.event_log import Entry, Reader

Send = Callable[[dict[str, Any]], Awaitable[None]]
DATA = b"data: "
KEEP_ALIVE_SECONDS = 15.0

_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class EventStream:
    """One response. Source: WHATWG HTML, 9.2; MCP 2026-07-28, transports."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def begin(self) -> None:
        """Send the head, with a comment: a head alone may wait for its body."""
        if not self.begun:
            self.begun = True
            await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await self._write(b": \n\n", more=True)

    async def event(self, message: bytes, event_id: bytes = b"", *, more: bool = True) -> None:
        """Send one message of JSON without line breaks."""
        await self.begin()
        head = b"id: %b\n" % event_id if event_id else b""
        await self._write(b"%bevent: message\n%b%b\n\n" % (head, DATA, message), more=more)

    async def mark(self, event_id: bytes, retry: int) -> None:
        """Send an id without a message, and after how many milliseconds to come back with it."""
        await self.begin()
        await self._write(b"id: %b\nretry: %d\n%b\n\n" % (event_id, retry, DATA), more=True)

    async def endpoint(self, where: str) -> None:
        """Say where messages are to be posted (HTTP+SSE of 2024-11-05)."""
        await self.begin()
        await self._write(b"event: endpoint\n%b%b\n\n" % (DATA, where.encode()), more=True)

    async def comment(self) -> None:
        """Keep what lies between from closing a quiet connection."""
        await self._write(b": \n\n", more=True)

    async def end(self) -> None:
        """Send no more."""
        await self.begin()
        await self._write(b"", more=False)

    async def _write(self, data: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})


async def relate(reader: Reader, stream: EventStream, last: bytes = b"") -> None:
    """Send what a reader reads until nothing comes any more; then `last`, if the journal ended."""
    journal, name = reader.journal, reader.journal.name.encode()
    try:
        await stream.begin()  # who comes back early waits for the head too
        while (entry := await _next(reader, stream)) is not None:
            number, message = entry
            event_id = b"%b-%d" % (name, number) if name else b""
            if not message:
                await stream.mark(event_id, journal.retry)
                continue
            more = bool(last) or not reader.over
            await stream.event(message, event_id, more=more)
            if not more:
                return
        await (stream.event(last, more=False) if last and journal.ended else stream.end())
    finally:
        reader.leave()


async def attend(
    scope: MutableMapping[str, Any], reader: Reader, stream: EventStream, last: bytes = b""
) -> None:
    """Have a client read until it has all or leaves."""
    presence = Presence(scope, reader.leave)
    try:
        await relate(reader, stream, last)
    finally:
        presence.settled()


async def _next(reader: Reader, stream: EventStream) -> Entry | None:
    while True:
        try:
            async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                return await reader.next()
        except TimeoutError:
            await stream.comment()


class Presence:
    """Whether the client is still there; `left` runs once when it goes before `settled`."""

    def __init__(self, scope: MutableMapping[str, Any], left: Callable[[], None]) -> None:
        self._scope = scope
        if scope.get(LEFT):  # before anybody listened for it
            left()
        else:
            scope[GONE] = left

    def settled(self) -> None:
        """The answer is there: who leaves now leaves nothing behind."""
        self._scope.pop(GONE, None)
