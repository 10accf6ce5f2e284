"""MCP servers whose calls fail in a selected way: hang, delay, reset, half-open, invalid bytes.

As a program it runs one server per port. `POST /trouble/<name>` sets the fault, and returns the
number of tool calls so far. With `?wholly` the fault applies to all requests, not only to calls.
"""

import argparse
import asyncio
import json
import random
import socket
import struct
from collections import Counter
from contextlib import AsyncExitStack, suppress
from typing import Any

from toolbus_common.object_storage.tcp_listener import listening

TROUBLES = ("", "hung", "trickle", "reset", "half-open", "garbage", "nonsense", "failing")
TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("plain", "twice")]
NEVER = 3600.0
_TURNS = 5  # turns of the event loop for its reader and writer
_ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset


class FaultyServer:
    """A stateless MCP server. `call_count` is the number of tool calls that reached it.

    With `session` it is session-based, and gives this session id to every client.
    """

    def __init__(self, seconds: float = 0.0, workers: int = 1000, session: str = "") -> None:
        self.trouble = ""
        self.wholly = False  # whether the fault applies to every request
        self.tools = TOOLS
        self.methods = Counter[str]()
        self.sessions = Counter[str]()  # calls by session id
        self._session = session
        self.only = NEVER  # number of calls that fail before the server recovers
        self.call_count = 0
        self.met = 0  # number of received `server/discover` requests
        self.maximum = 0  # highest number of simultaneous calls
        self.port = 0
        self.connected = 0  # connections so far
        self.released = asyncio.Event()  # if set, hanging calls get their responses
        self._seconds = seconds
        self._workers = asyncio.Semaphore(workers)
        self._in_progress = 0
        self._server = AsyncExitStack()
        self._connections: set[asyncio.Task[None]] = set()

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

    async def hang_up(self) -> None:
        """Close all connections."""
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        for _ in range(_TURNS):  # clients in this process have noticed the close
            await asyncio.sleep(0)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self.connected += 1
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                while True:
                    await self._one(reader, writer)
        finally:
            self._connections.discard(task)

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = head.partition("content-length:")[2].partition("\r\n")[0]
        body = await reader.readexactly(int(length or 0))
        path = head.split(" ", 2)[1]
        if path.startswith("/trouble/"):
            self.wholly = path.endswith("?wholly")
            self.trouble = path.removeprefix("/trouble/").removesuffix("?wholly")
            writer.write(_whole(b"%d" % self.call_count))
        elif not body:
            writer.write(b"HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n")
        else:
            session = head.partition("mcp-session-id: ")[2].partition("\r\n")[0]
            await self._answer(json.loads(body), session, writer)
        await writer.drain()

    async def _answer(
        self, request: dict[str, Any], session: str, writer: asyncio.StreamWriter
    ) -> None:
        self.met += request["method"] == "server/discover"
        self.methods[request["method"]] += 1
        if request["method"] != "tools/call":
            if self.trouble and self.wholly:
                await self._go_wrong(request, writer)
            else:
                writer.write(self._whole(request))
            return
        self.call_count += 1
        self.sessions[session] += 1
        self._in_progress += 1
        self.maximum = max(self.maximum, self._in_progress)
        try:
            await self._call(request, writer)
        finally:
            self._in_progress -= 1

    async def _call(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if self.trouble and self.only > 0:
            self.only -= 1
            await self._go_wrong(request, writer)
            return
        async with self._workers:
            await asyncio.sleep(self._seconds)
        writer.write(self._whole(request))

    async def _go_wrong(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        await (self._hung if self.trouble == "hung" else _TROUBLES[self.trouble])(request, writer)

    async def _hung(self, request: Any, writer: asyncio.StreamWriter) -> None:
        await self.released.wait()
        writer.write(self._whole(request))

    def _whole(self, request: dict[str, Any]) -> bytes:
        """Return the response in the form of the server's family."""
        method = request["method"]
        if self._session and method == "server/discover":
            return _whole(_error(request, -32601))
        if self._session and method == "initialize":
            return _whole(_message(request), f"Mcp-Session-Id: {self._session}\r\n".encode())
        return _whole(_message(request, self.tools))


async def _trickle(request: Any, writer: asyncio.StreamWriter) -> None:
    for byte in _whole(_message(request)):
        writer.write(bytes((byte,)))
        await writer.drain()
        await asyncio.sleep(1)


async def _reset(_request: Any, writer: asyncio.StreamWriter) -> None:
    opened: socket.socket = writer.get_extra_info("socket")
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    writer.transport.abort()
    raise ConnectionResetError


async def _half_open(_request: Any, writer: asyncio.StreamWriter) -> None:
    """Stop reading and writing without closing, which resembles a machine that has failed."""
    transport = writer.transport
    assert isinstance(transport, asyncio.Transport)
    transport.pause_reading()
    await asyncio.sleep(NEVER)


async def _garbage(_request: Any, writer: asyncio.StreamWriter) -> None:
    writer.write(random.randbytes(4096))


async def _nonsense(_request: Any, writer: asyncio.StreamWriter) -> None:
    writer.write(_whole(b'["in JSON, and no message"]'))


async def _boundless(_request: Any, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"100000\r\n" + b" " * 0x100000 + b"\r\n")
        await writer.drain()


async def _refusing(request: Any, writer: asyncio.StreamWriter) -> None:
    writer.write(_whole(_error(request, -32000)))


async def _failing(_request: Any, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")


_TROUBLES = {
    "trickle": _trickle,
    "reset": _reset,
    "half-open": _half_open,
    "garbage": _garbage,
    "nonsense": _nonsense,
    # These faults affect only one call:
    "refusing": _refusing,
    "boundless": _boundless,
    "failing": _failing,
}


def _error(request: dict[str, Any], code: int) -> bytes:
    error = {"code": code, "message": "no"}
    return json.dumps({"jsonrpc": "2.0", "id": request.get("id"), "error": error}).encode()


def _message(request: dict[str, Any], tools: Any = TOOLS) -> bytes:
    results: dict[str, dict[str, Any]] = {
        "initialize": {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "troubled", "version": "1"},
        },
        "server/discover": {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}},
        "tools/list": {"tools": tools, "ttlMs": 0, "cacheScope": "private"},
        "tools/call": {"content": [{"type": "text", "text": "done"}], "isError": False},
    }
    result = {"resultType": "complete", **results.get(request["method"], {})}
    return json.dumps({"jsonrpc": "2.0", "id": request.get("id"), "result": result}).encode()


def _whole(body: bytes, headers: bytes = b"") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n"
    return head % (len(body), headers) + body


async def _serve(ports: list[int], seconds: float, workers: int) -> None:
    servers = [FaultyServer(seconds, workers) for _ in ports]
    for server, port in zip(servers, ports, strict=True):
        await server.start(port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("ports", type=int, nargs="+")
    options.add_argument("--seconds", type=float, default=0.0)
    options.add_argument("--workers", type=int, default=1000)
    given = options.parse_args()
    asyncio.run(_serve(given.ports, given.seconds, given.workers))
