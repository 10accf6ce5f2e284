"""Syslog receivers over TCP or TLS with octet counting, and over UDP."""

import asyncio
import json
import socket
import ssl
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Self

from harness.engines.engine import own_port
from toolbus_common.object_storage.tcp_listener import listening


@dataclass(frozen=True)
class SyslogMessage:
    """A message, parsed according to RFC 5424."""

    priority: int
    at: str
    host: str
    program: str
    name: str
    event: Any

    @classmethod
    def of(cls, message: bytes) -> "SyslogMessage":
        """Parse a message. Raises an error if it is malformed."""
        head, at, host, program, process, name, data, text = message.decode().split(" ", 7)
        assert (process, data) == ("-", "-")
        priority, closing, version = head[1:].partition(">")
        assert (head[0], closing, version) == ("<", ">", "1")
        return cls(int(priority), at, host, program, name, json.loads(text))


class SyslogServer:
    """A receiver that runs until the context ends. After `cut` it can restart on the same port."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.port = own_port()
        self.messages: list[SyslogMessage] = []
        self.connections = 0
        self._context = context
        self._server = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()

    async def start(self) -> None:
        """Start listening."""
        await self._server.enter_async_context(
            listening(self._meet, port=self.port, context=self._context)
        )

    async def cut(self) -> None:
        """Stop listening, and drop all connections with their unread data."""
        await self._server.aclose()

    @property
    def ids(self) -> list[str]:
        """The ids of the received events, in order."""
        return [each.event["id"] for each in self.messages]

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                length = await reader.readuntil(b" ")
                self.messages.append(SyslogMessage.of(await reader.readexactly(int(length))))
        except (asyncio.IncompleteReadError, OSError):
            writer.transport.abort()


class Datagrams:
    """A UDP port that is open until the context ends."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)  # noqa: FBT003 - the only way to say so
        self.port = int(self._socket.getsockname()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    async def messages(self) -> SyslogMessage:
        """Return the next message."""
        loop = asyncio.get_running_loop()
        return SyslogMessage.of(await loop.sock_recv(self._socket, 65_536))
