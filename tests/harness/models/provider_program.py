"""Mock provider as a process; `harness.models.mock_provider` describes its options.

Usage: `python provider_program.py PORT [LOG]`. With a log, the arrival and the end of every request
are lines of JSON in it, each written before the next byte of the response.
"""

import asyncio
import os
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import msgspec
import uvloop

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
from harness.models import provider_replies as replies

JSON, EVENTS = b"application/json", b"text/event-stream"
HEAD_END, PREFIX = b"\r\n\r\n", "/v1"
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close sends RST
RECORDED = ("authorization", "x-api-key", "traceparent", "anthropic-version", "anthropic-beta")
FOREVER = 3600.0
decode = msgspec.json.Decoder().decode


class Log:
    """The log of requests."""

    def __init__(self, path: str) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._file = os.open(path, flags, 0o600) if path else None
        self._number = 0

    def next_number(self) -> int:
        """Return a number for a request."""
        self._number += 1
        return self._number

    def write(self, **fields: Any) -> None:
        """Append one line."""
        if self._file is not None:
            os.write(self._file, replies.encode(fields) + b"\n")


class Connection(asyncio.Protocol):
    """One connection of a client. Its requests are answered one after the other."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._buffer = b""
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport
        self._request: replies.Request | None = None
        self._sent = 0
        self._key = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer each complete request."""
        self._buffer += data
        while self._task is None and self._answers_one():
            pass

    def connection_lost(self, _: Exception | None) -> None:
        """Record a client that disconnected before the end of the response."""
        if self._task is not None:
            self._task.cancel()
        self._end("gone")

    def _answers_one(self) -> bool:
        end = self._buffer.find(HEAD_END)
        if end < 0:
            return False
        first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        fields = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in fields}
        size = int(headers.get("content-length", 0))
        body = self._buffer[end + 4 : end + 4 + size]
        if len(body) < size:
            return False
        self._buffer = self._buffer[end + 4 + size :]
        method, target, _ = first.split(" ", 2)
        self._answer(method, target.partition("?")[0].removeprefix(PREFIX), headers, body)
        return True

    def _answer(self, method: str, path: str, headers: dict[str, str], data: bytes) -> None:
        if method == "GET":
            model = {"id": "mock", "object": "model", "created": 0, "owned_by": "mock"}
            self._send(200, replies.encode({"object": "list", "data": [model]}))
            return
        body = decode(data)
        options = _options(str(body.get("model", ""))) | _options(f":{body.get('mock', '')}")
        request = replies.Request(self._log.next_number(), path, body, len(data), options)
        self._request, self._sent = request, 0
        self._key = headers.get("authorization", "") or headers.get("x-api-key", "")
        kept = {name: headers[name] for name in RECORDED if name in headers}
        self._log.write(number=request.number, path=path, body=body, headers=kept)
        if "hang" in options or "delay" in options or body.get("stream"):
            self._task = asyncio.get_running_loop().create_task(self._answer_slowly(request))
        else:
            self._answer_at_once(request)

    def _answer_at_once(self, request: replies.Request) -> None:
        status = request.options.get("status", 200)
        if status == 200:
            self._end("complete")
            self._send(200, replies.reply(request))
            return
        self._end("refused")
        more = b""
        if "retry" in request.options:
            more = b"retry-after: %d\r\n" % request.options["retry"]
        self._send(status, replies.error(request.path, status, _complaint(status, self._key)), more)

    async def _answer_slowly(self, request: replies.Request) -> None:
        if "hang" in request.options:
            await asyncio.sleep(FOREVER)
        await asyncio.sleep(request.options.get("delay", 0) / 1000)
        if request.options.get("status", 200) != 200 or not request.body.get("stream"):
            self._answer_at_once(request)
        else:
            await self._stream(request)
        self._task = None
        self.data_received(b"")

    async def _stream(self, request: replies.Request) -> None:
        options = request.options
        before, parts, rest = replies.stream(request)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n" % EVENTS
        self._transport.write(head + _chunk(before))
        gap = options.get("gap", 0) / 1000
        for part in parts:
            if await self._stops(options):
                return
            await asyncio.sleep(gap)
            self._sent += 1
            self._transport.write(_chunk(part))
        if not await self._stops(options):
            self._end("complete")
            self._transport.write(_chunk(rest) + b"0\r\n\r\n")

    async def _stops(self, options: dict[str, int]) -> bool:
        """Do what the options say after this many parts; return whether the stream is over."""
        if options.get("wait") == self._sent:
            self._log.write(number=self._number, waits=True)
            await asyncio.sleep(FOREVER)
        if options.get("cut") == self._sent:
            self._end("cut")
            self._transport.write(b"0\r\n\r\n")
            return True
        if options.get("reset") == self._sent:
            self._end("reset")
            self._transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE
            )
            self._transport.abort()
            return True
        return False

    @property
    def _number(self) -> int:
        return self._request.number if self._request else 0

    def _end(self, how: str) -> None:
        if self._request is None:
            return
        usage = self._request.usage if how in ("complete", "gone", "cut", "reset") else {}
        self._log.write(number=self._number, ended=how, parts=self._sent, usage=usage)
        self._request = None

    def _send(self, status: int, body: bytes, more: bytes = b"") -> None:
        self._transport.write(
            b"HTTP/1.1 %d \r\ncontent-type: %b\r\n%bcontent-length: %d\r\n\r\n%b"
            % (status, JSON, more, len(body), body)
        )


def _complaint(status: int, key: str) -> str:
    """Return an error message. Real providers repeat the key in the message about a wrong key."""
    return f"Incorrect API key provided: {key}." if status == 401 else "The mock refuses this."


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _options(model: str) -> dict[str, int]:
    """Return the options at the end of a model's name, `NAME:OPTION[=NUMBER],…`."""
    words = (word.partition("=") for word in model.partition(":")[2].split(",") if word)
    return {name: int(number or 1) for name, _, number in words}


async def serve(port: int, log: Log) -> None:
    """Serve until the process ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(log), "127.0.0.1", port, backlog=1024)
    with suppress(asyncio.CancelledError):
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), Log(sys.argv[2] if len(sys.argv) > 2 else "")))
