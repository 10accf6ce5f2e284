"""CPU of HTTP layers per request, with a handler that returns a fixed answer.

Usage: `python bench/http_layers.py [uvloop|asyncio]`. The layers are a protocol that does not
parse, a protocol that only parses, the gateway's listener, and plain uvicorn. The load comes from
another process and is not counted.
"""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httptools
import uvicorn
import uvloop

from edge import CALL, load_plan, served_us
from toolbus_common.http_server.limits import Limits
from toolbus_common.service.asgi_server import serving

BODY = b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"bench"}]}}'
HEADERS = [(b"content-length", b"%d" % len(BODY)), (b"content-type", b"application/json")]
ANSWER = b"HTTP/1.1 200 OK\r\n%b\r\n%b" % (b"".join(b"%b: %b\r\n" % each for each in HEADERS), BODY)
SECONDS = 1.5
ROUNDS = 3


async def answer(_scope: Any, receive: Any, send: Any) -> None:
    """Read the body and return the fixed answer."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


class Unparsed(asyncio.Protocol):
    """Answers whatever arrives: the cost of the event loop and the sockets."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, _data: bytes) -> None:
        """Write the answer."""
        self.transport.write(ANSWER)


class Parsed(Unparsed):
    """Parses requests and answers each in a task of its own, without any limits."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Create the parser."""
        super().connection_made(transport)
        self.parser = httptools.HttpRequestParser(self)
        self.headers: list[tuple[bytes, bytes]] = []

    def data_received(self, data: bytes) -> None:
        """Parse data."""
        self.parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a header."""
        self.headers.append((name.lower(), value))

    def on_message_complete(self) -> None:
        """Start the answer."""
        self.headers = []
        self.task = asyncio.get_running_loop().create_task(self._answer())

    async def _answer(self) -> None:
        self.transport.write(ANSWER)


@asynccontextmanager
async def _protocol(kind: type[asyncio.Protocol]) -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(kind, "127.0.0.1", 0)
    yield int(server.sockets[0].getsockname()[1])
    server.close()


@asynccontextmanager
async def _gateway() -> AsyncIterator[int]:
    async with serving(answer, "edge", "127.0.0.1", 0, Limits(), 1.0) as listener:
        yield listener.port


@asynccontextmanager
async def _uvicorn() -> AsyncIterator[int]:
    config = uvicorn.Config(
        answer, port=0, http="httptools", lifespan="off", access_log=False, log_level="error"
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.05)
    yield int(server.servers[0].sockets[0].getsockname()[1])
    server.should_exit = True
    await task


async def _measure() -> None:
    gc.freeze()
    layers = {
        "unparsed": _protocol(Unparsed),
        "parsed": _protocol(Parsed),
        "the gateway's listener": _gateway(),
        "uvicorn": _uvicorn(),
    }
    for name, layer in layers.items():
        async with layer as port:
            plan = load_plan(port, CALL, SECONDS)
            used = [await served_us(plan) for _ in range(ROUNDS)]
            print(f"{name:25} {min(used):6.1f} µs a request")


if __name__ == "__main__":
    (asyncio.run if "asyncio" in sys.argv else uvloop.run)(_measure())
