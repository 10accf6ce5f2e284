"""MCP server whose results have the requested size, over HTTP or stdio.

Usage: `python large_result_server.py` for stdio, `python large_result_server.py PORT` for HTTP.
"""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from typing import Any

from toolbus_common.object_storage.tcp_listener import listening

LINE = 'A line of a very long report, é😀 "quoted".\n'
PIECE = 64 << 10
TOOLS = [
    {"name": name, "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}}
    for name in ("text", "streamed", "image", "rows", "many", "escape")
]
_LOCAL: dict[str, dict[str, Any]] = {
    "server/discover": {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}},
    "tools/list": {"tools": TOOLS, "ttlMs": 0, "cacheScope": "private"},
}


def pieces(request: dict[str, Any]) -> Iterator[bytes]:
    """Yield the response to a request as JSON in parts."""
    result = _LOCAL.get(request["method"])
    if result is not None:
        yield json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode()
        return
    if request["method"] != "tools/call":
        unknown = {"code": -32601, "message": "Method not found"}
        yield json.dumps({"jsonrpc": "2.0", "id": request.get("id"), "error": unknown}).encode()
        return
    tool, arguments = request["params"]["name"], request["params"].get("arguments", {})
    yield b'{"jsonrpc":"2.0","result":{"resultType":"complete",'
    yield from _FORMS[tool](int(arguments.get("bytes", 0)))
    yield b'},"id":%d}' % request["id"]  # JSON permits the id at the end


def _text(size: int) -> Iterator[bytes]:
    yield b'"content":[{"type":"text","text":"'
    yield from _repeated(json.dumps(LINE)[1:-1].encode(), size)
    yield b'"},{"type":"text","text":"the end"}]'


def _image(size: int) -> Iterator[bytes]:
    yield b'"content":[{"type":"image","mimeType":"image/png","data":"'
    yield from _repeated(b"iVBORw0K", size)
    yield b'"}]'


def _rows(size: int) -> Iterator[bytes]:
    yield b'"content":[],"structuredContent":{"rows":[{"id":0,"name":"]}\\""}'
    yield from _repeated(b',{"id":1,"name":"a row","tags":["x","y"]}', size)
    yield b"]}"


def _many(size: int) -> Iterator[bytes]:
    yield b'"content":[{"type":"text","text":"first"}'
    yield from _repeated(b',{"type":"text","text":"%b"}' % (b"one of many. " * 50), size)
    yield b"]"


def _escape(size: int) -> Iterator[bytes]:
    yield b'"content":[{"type":"text","text":"'
    yield from _repeated(b"x" * 80, size)
    yield b'\\uZZZZZZZZZZZZZZ"}]'


def _repeated(unit: bytes, size: int) -> Iterator[bytes]:
    block = unit * (PIECE // len(unit))
    for _ in range(size // len(block)):
        yield block
    yield unit * (size % len(block) // len(unit))


_FORMS = {
    "text": _text,
    "streamed": _text,
    "image": _image,
    "rows": _rows,
    "many": _many,
    "escape": _escape,
}


class LargeResultServer:
    """The server over HTTP. `call_count` is the number of tool calls."""

    def __init__(self) -> None:
        self.call_count = 0
        self.requests: list[dict[str, Any]] = []
        self.port = 0
        self._server = AsyncExitStack()

    @property
    def url(self) -> str:
        """The URL of the MCP endpoint."""
        return f"http://127.0.0.1:{self.port}/mcp"

    async def start(self, port: int = 0) -> None:
        """Start listening."""
        self.port = await self._server.enter_async_context(listening(self._connected, port=port))

    async def close(self) -> None:
        """Stop listening and close all connections."""
        await self._server.aclose()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    await self._one(reader, writer)
        finally:
            writer.transport.abort()  # do not wait for unread responses

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = head.partition("content-length:")[2].partition("\r\n")[0]
        body = await reader.readexactly(int(length or 0))
        if not body:
            writer.write(b"HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n")
            return
        request = json.loads(body)
        called = request["method"] == "tools/call"
        self.call_count += called
        self.requests.append(request)
        stream = called and request["params"]["name"] == "streamed"
        media = b"text/event-stream" if stream else b"application/json"
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % media
        )
        result = pieces(request)
        for piece in (b"data: ", *result, b"\n\n") if stream else result:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b"")
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()


def _on_stdio() -> None:
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "id" in request:
            for piece in pieces(request):
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.write(b"\n")
            sys.stdout.buffer.flush()


async def _serve(port: int) -> None:
    server = LargeResultServer()
    await server.start(port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(_serve(int(sys.argv[1])))
    else:
        _on_stdio()
