"""Proxy between the suite and the gateway that adds the key and, in one leg, hides the prefix.

Everything else passes unchanged and without buffering.
"""

import asyncio
import base64
import binascii
import json
import re
import threading
from collections.abc import Callable
from contextlib import suppress

_LENGTH = re.compile(rb"(?im)^content-length:[ \t]*(\d+)[ \t]*\r?$")
_CHUNKED = re.compile(rb"(?im)^transfer-encoding:.*chunked")
_NAME = re.compile(rb"(?im)^(mcp-name:[ \t]*)([^\r\n]*?)([ \t]*\r?)$")
_PATH = re.compile(rb"^([A-Z]+) (\S+) ")
_NO_BODY = re.compile(rb"HTTP/1\.1 (1\d\d|204|304)")
_NAMED = {"tools/call", "prompts/get"}
_LARGEST = 1 << 24

Rewrite = Callable[[bytes], bytes]


class Shim:
    """A proxy on its own port, in a thread, to one endpoint of the gateway."""

    def __init__(self, port: int, path: str, key: str, prefix: str = "") -> None:
        self._target = port
        self._path = path.encode()
        self._key = f"authorization: Bearer {key}\r\n".encode()
        self._prefix = prefix.encode()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self.port = 0

    @property
    def url(self) -> str:
        """The URL for the suite."""
        return f"http://localhost:{self.port}/mcp"

    def start(self) -> None:
        """Start to listen."""
        threading.Thread(target=self._serve, daemon=True).start()
        self._ready.wait()

    def stop(self) -> None:
        """Stop listening."""
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        listening = asyncio.start_server(self._client, "127.0.0.1", 0, limit=_LARGEST)
        server = self._loop.run_until_complete(listening)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = None
        try:
            up_reader, upstream = await asyncio.open_connection(
                "127.0.0.1", self._target, limit=_LARGEST
            )
            ahead = b""
            while head := ahead + await reader.readuntil(b"\r\n\r\n"):
                body = await _body(reader, head)
                upstream.write(self._request(head, body))
                ahead = await self._answer(reader, up_reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            for side in (writer, upstream):
                if side is not None:
                    side.close()
                    with suppress(ConnectionError):
                        await side.wait_closed()

    async def _answer(
        self,
        client: asyncio.StreamReader,
        upstream: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bytes:
        """Forward one answer and what the client sends meanwhile, until either side disconnects."""
        passing = asyncio.create_task(self._pass(upstream, writer))
        gone = asyncio.create_task(client.read(1))
        await asyncio.wait((passing, gone), return_when=asyncio.FIRST_COMPLETED)
        if not passing.done() and not gone.result():
            passing.cancel()
            raise ConnectionResetError
        await passing
        if not gone.done():
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone
            return b""
        if not gone.result():
            raise ConnectionResetError
        return gone.result()

    async def _pass(self, upstream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await upstream.readuntil(b"\r\n\r\n")
        if _CHUNKED.search(head):
            writer.write(head)
            while size := int((line := await upstream.readline()).split(b";")[0], 16):
                chunk = self._bare(await upstream.readexactly(size))
                writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                await writer.drain()
                await upstream.readline()
            writer.write(line + await upstream.readline())
        else:
            body = b"" if _NO_BODY.match(head) else self._bare(await _body(upstream, head))
            writer.write(_LENGTH.sub(b"content-length: %d\r" % len(body), head) + body)
        await writer.drain()

    def _bare(self, body: bytes) -> bytes:
        return body.replace(b'"' + self._prefix, b'"') if self._prefix else body

    def _request(self, head: bytes, body: bytes) -> bytes:
        head = _PATH.sub(rb"\1 %b " % self._path, head, count=1)
        line, _, rest = head.partition(b"\r\n")
        if self._prefix:
            method, body = self._prefixed(body)
            rest = _LENGTH.sub(b"content-length: %d\r" % len(body), rest)
            if method in _NAMED:
                rest = _NAME.sub(self._prefixed_header, rest)
        return line + b"\r\n" + self._key + rest + body

    def _prefixed(self, body: bytes) -> tuple[str, bytes]:
        try:
            message = json.loads(body)
            method, params = message["method"], message.get("params", {})
        except (ValueError, KeyError, TypeError):
            return "", body
        owner = params.get("ref") if method == "completion/complete" else params
        named = method in _NAMED or method == "completion/complete"
        if not named or not isinstance(owner, dict) or not isinstance(owner.get("name"), str):
            return method, body
        owner["name"] = self._prefix.decode() + owner["name"]
        return method, json.dumps(message).encode()

    def _prefixed_header(self, match: re.Match[bytes]) -> bytes:
        value = match[2]
        if value.startswith(b"=?base64?") and value.endswith(b"?="):
            with suppress(binascii.Error):
                inner = base64.b64decode(value[9:-2], validate=True)
                value = b"=?base64?" + base64.b64encode(self._prefix + inner) + b"?="
                return match[1] + value + match[3]
        return match[1] + self._prefix + value + match[3]


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    length = _LENGTH.search(head)
    return await reader.readexactly(int(length[1])) if length else b""
