"""An answer as server-sent events: begun only once there is something to tell."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Send = Callable[[dict[str, Any]], Awaitable[None]]
GONE = "toolbus.gone"  # in the scope: called once when the client has closed its connection
LEFT = "toolbus.left"  # in the scope: the client has closed its connection

DATA = b"data: "

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

    async def event(self, message: bytes, *, more: bool = True) -> None:
        """Send one message of JSON without line breaks."""
        await self.begin()
        await self._write(b"event: message\n%b%b\n\n" % (DATA, message), more=more)

    async def endpoint(self, where: str) -> None:
        """Say where messages are to be posted (HTTP+SSE of 2024-11-05)."""
        await self.begin()
        await self._write(b"event: endpoint\n%b%b\n\n" % (DATA, where.encode()), more=True)

    async def comment(self) -> None:
        """Keep what lies between from closing a quiet connection."""
        await self._write(b": \n\n", more=True)

    async def end(self) -> None:
        """Send no more."""
        await self._write(b"", more=False)

    async def _write(self, data: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})


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


class Mailbox:
    """Messages on their way to one reader, who may be slow: at most `most`, then none but the end.

    A reader that falls behind loses notifications, never an answer.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: asyncio.Queue[bytes | None] = asyncio.Queue()

    def put(self, message: bytes) -> None:
        """Add a message if there is room."""
        if self._waiting.qsize() < self._most:
            self._waiting.put_nowait(message)

    def close(self) -> None:
        """After what waits comes the end."""
        self._waiting.put_nowait(None)

    async def get(self) -> bytes | None:
        """The next message, or None at the end."""
        return await self._waiting.get()
