"""HTTP server in the test process that speaks the API of a model provider, as a test scripts it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from harness.network.tcp_servers import served

DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}


@dataclass
class ModelRequest:
    """A received request, and its connection."""

    path: str
    headers: dict[str, str]
    body: bytes
    writer: asyncio.StreamWriter
    closed: asyncio.Event = field(default_factory=asyncio.Event)  # by the client

    @property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)

    async def reply(self, body: Any, status: int = 200, **headers: str) -> None:
        """Send a complete response. Bytes are sent unchanged, any other body is sent as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        own = {"content-type": "application/json", "content-length": str(len(raw))}
        lines = "".join(
            f"{name.replace('_', '-')}: {value}\r\n" for name, value in (own | headers).items()
        )
        self.writer.write(f"HTTP/1.1 {status} Status\r\n{lines}\r\n".encode() + raw)
        await self.writer.drain()

    async def begin_stream(self, kind: str = "text/event-stream") -> None:
        """Send the head of an event stream."""
        self.writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n"
            b"transfer-encoding: chunked\r\n\r\n" % kind.encode()
        )
        await self.writer.drain()

    async def send(self, part: bytes) -> None:
        """Send a part of the stream."""
        self.writer.write(b"%x\r\n%b\r\n" % (len(part), part))
        await self.writer.drain()

    async def end_stream(self) -> None:
        """End the stream and the response."""
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    def kill(self) -> None:
        """Reset the connection, as the death of the provider's process does."""
        self.writer.transport.abort()


Answer = Callable[[ModelRequest], Awaitable[None]]


class ModelProvider:
    """A provider. `answer` responds to each request; the received requests are in `requests`."""

    def __init__(self) -> None:
        self.requests: list[ModelRequest] = []
        self.connections = 0
        self.url = ""
        self.answer: Answer = complete

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ModelProvider"]:
        """Listen until the context ends."""
        async with served(self._meet) as port:
            self.url = f"http://127.0.0.1:{port}/v1"
            yield self

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            start, *lines = head.decode().strip().split("\r\n")
            headers: dict[str, str] = {}
            for line in lines:
                name, _, value = line.partition(": ")
                headers[name.lower()] = value
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            request = ModelRequest(start.split(" ")[1], headers, body, writer)
            self.requests.append(request)
            answering = asyncio.ensure_future(self.answer(request))
            watching = asyncio.ensure_future(_watched(reader, request, answering))
            try:
                await answering
            finally:
                answering.cancel()
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)


async def _watched(
    reader: asyncio.StreamReader, request: ModelRequest, answering: asyncio.Future[None]
) -> None:
    """Note that the client closed the connection, and end the answer."""
    with suppress(OSError):
        await reader.read(1)  # the client sends nothing until it has the whole response
    request.closed.set()
    answering.cancel()


def chunk(text: str, **more: Any) -> bytes:
    """Return an event of a chat stream with a piece of text."""
    event = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}], **more}
    return b"data: %b\n\n" % json.dumps(event).encode()


def last_chunk(reason: str = "stop") -> bytes:
    """Return the event of a chat stream with its finish reason."""
    event = {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
    return b"data: %b\n\n" % json.dumps(event).encode()


def usage_chunk(usage: Any = USAGE) -> bytes:
    """Return the event of a chat stream with the usage only."""
    return b"data: %b\n\n" % json.dumps({"choices": [], "usage": usage}).encode()


async def complete(request: ModelRequest) -> None:
    """Answer a chat request completely."""
    message = {"role": "assistant", "content": "Hello there"}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    await request.reply({"model": request.json["model"], "choices": choices, "usage": USAGE})


async def stream(request: ModelRequest) -> None:
    """Answer a chat request with a stream of two pieces of text."""
    await request.begin_stream()
    for part in (chunk("Hello"), chunk(" there"), last_chunk(), usage_chunk(), DONE):
        await request.send(part)
    await request.end_stream()
