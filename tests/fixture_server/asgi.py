"""HTTP requests and answers for the transports, on ASGI."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from .request_checks import Headers
from .stream import Stream
from .wire import Json, RefusedError, dump, failure

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

IDLE_SECONDS = 5.0
RETRY_MS = 300
_STREAMED = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
_REPEATABLE = ("mcp-protocol-version", "mcp-method", "mcp-name", "mcp-param-")


@dataclass
class Request:
    """One HTTP request with the means to answer it."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: Headers
    doubled: bool
    receive: Receive
    send: Send

    async def body(self) -> bytes:
        """Return the whole body."""
        body, more = b"", True
        while more:
            message = await self.receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        return body

    async def gone(self) -> None:
        """Wait until the client closes the connection; call it after `body`."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def answer(self, status: int, body: Any = None, **headers: str) -> None:
        """Send a whole answer: empty, or JSON."""
        data = b"" if body is None else dump(body)
        raw = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
        raw += [(b"content-length", str(len(data)).encode())]
        raw += [(b"content-type", b"application/json")] if data else []
        await self.send({"type": "http.response.start", "status": status, "headers": raw})
        await self.send({"type": "http.response.body", "body": data})

    async def refuse(self, refusal: RefusedError, request_id: Any = None) -> None:
        """Send an error."""
        await self.answer(refusal.status, failure(request_id, refusal))

    async def stream(self, events: AsyncIterator[bytes], **headers: str) -> None:
        """Send events until they end."""
        raw = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
        start = {"type": "http.response.start", "status": 200, "headers": [*_STREAMED, *raw]}
        await self.send(start)
        await self._part(b"", more=True)
        async for event in events:
            await self._part(event, more=True)
        await self._part(b"", more=False)

    async def until_gone(self, work: Awaitable[None]) -> bool:
        """Run `work` until it is done or the client disconnects; return whether it is done."""
        working = asyncio.ensure_future(work)
        gone = asyncio.create_task(self.gone())
        try:
            await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                await working
                return True
            return False
        finally:
            for task in (working, gone):
                task.cancel()

    async def _part(self, body: bytes, *, more: bool) -> None:
        await self.send({"type": "http.response.body", "body": body, "more_body": more})


def read(scope: Scope, receive: Receive, send: Send) -> Request:
    """Return the request of an ASGI scope, with stripped header values."""
    headers: Headers = {}
    doubled = False
    for raw_name, raw_value in scope["headers"]:
        name = raw_name.decode("latin-1").lower()
        doubled = doubled or (name in headers and name.startswith(_REPEATABLE))
        headers[name] = raw_value.decode("latin-1").strip()
    query = parse_qs(scope.get("query_string", b"").decode())
    return Request(scope["method"], scope["path"], query, headers, doubled, receive, send)


def event(message: Json, event_id: str = "", name: str = "message") -> bytes:
    """Return a server-sent event."""
    head = f"id: {event_id}\n".encode() if event_id else b""
    return head + f"event: {name}\n".encode() + b"data: " + dump(message) + b"\n\n"


async def plain_events(stream: Stream) -> AsyncIterator[bytes]:
    """Yield events without ids; the client cannot resume them."""
    async for _, message in stream.read(0, idle=IDLE_SECONDS):
        yield b": still here\n\n" if message is None else event(message)


async def numbered_events(
    stream: Stream, start: int, *, prime: bool, resumed: bool = False
) -> AsyncIterator[bytes]:
    """Yield events with ids; `prime` starts with an empty one, so that an id exists."""
    if prime:
        yield f"id: {stream.name}:0\nretry: {RETRY_MS}\ndata: \n\n".encode()
    async for number, message in stream.read(start, idle=IDLE_SECONDS, resumed=resumed):
        if message is None:
            yield b": still here\n\n"
        else:
            yield event(message, f"{stream.name}:{number + 1}")
