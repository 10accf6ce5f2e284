"""Receivers of syslog: over TCP or TLS with octets counted, and datagrams; they can be killed."""

import asyncio
import json
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from harness.engines.engine import own_port


@dataclass(frozen=True)
class Heard:
    """One message, taken apart as RFC 5424 has it."""

    priority: int
    at: str
    host: str
    program: str
    name: str
    told: Any

    @classmethod
    def of(cls, message: bytes) -> "Heard":
        """Read it; fails where it is none."""
        head, at, host, program, process, name, data, text = message.decode().split(" ", 7)
        assert (process, data) == ("-", "-")
        priority, closing, version = head[1:].partition(">")
        assert (head[0], closing, version) == ("<", ">", "1")
        return cls(int(priority), at, host, program, name, json.loads(text))


class SyslogServer:
    """Listens while it is entered; after `cut` it is there again on the same port."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.port = own_port()
        self.heard: list[Heard] = []
        self.connections = 0
        self._context = context
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(
            self._meet, "127.0.0.1", self.port, ssl=self._context
        )

    async def cut(self) -> None:
        """Listen no more, and drop every connection with whatever is in it."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await server.wait_closed()

    @property
    def ids(self) -> list[str]:
        """The ids of the events heard, in their order."""
        return [each.told["id"] for each in self.heard]

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:  # it was cut before this connection was met
            writer.transport.abort()
            return
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                length = await reader.readuntil(b" ")
                self.heard.append(Heard.of(await reader.readexactly(int(length))))
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


class Datagrams:
    """A port for datagrams, open while it is entered."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)  # noqa: FBT003 - the only way to say so
        self.port = int(self._socket.getsockname()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    async def heard(self) -> Heard:
        """The next message."""
        loop = asyncio.get_running_loop()
        return Heard.of(await loop.sock_recv(self._socket, 65_536))
