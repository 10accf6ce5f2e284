"""A proxy that loses or delays what a Redis client and its server send, and a scripted server."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from harness.network.tcp_servers import served

CHUNK = 1 << 16


class LossyProxy:
    """Forwards connections to the Redis server of a port, until it is told to break one.

    `lose_reply` closes the connection at the server's next reply, which the client does not get.
    `hold_request` closes the connection at the client's next request; `release` delivers it later.
    """

    def __init__(self, port: int) -> None:
        self.lose_reply = False
        self.hold_request = False
        self.url = ""
        self._target = port
        self._held: tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes] | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator["LossyProxy"]:
        """Listen for the length of the block."""
        async with served(self._meet) as port:
            self.url = f"redis://127.0.0.1:{port}"
            yield self
        if self._held is not None:
            self._held[1].close()
            await self._held[1].wait_closed()

    async def release(self) -> bytes:
        """Deliver the held request and return the server's reply."""
        assert self._held is not None
        reader, writer, data = self._held
        writer.write(data)
        return await reader.read(CHUNK)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        requests = asyncio.create_task(self._requests(reader, server_reader, server_writer))
        replies = asyncio.create_task(self._replies(server_reader, writer))
        try:
            await asyncio.wait({requests, replies}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in (requests, replies):
                each.cancel()
            await asyncio.gather(requests, replies, return_exceptions=True)
            if self._held is None or self._held[1] is not server_writer:
                server_writer.close()

    async def _requests(
        self,
        reader: asyncio.StreamReader,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        while data := await reader.read(CHUNK):
            if self.hold_request:
                self.hold_request = False
                if self._held is not None:
                    self._held[1].close()
                self._held = server_reader, server_writer, data
                return
            server_writer.write(data)

    async def _replies(
        self, server_reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await server_reader.read(CHUNK):
            if self.lose_reply:
                self.lose_reply = False
                return
            writer.write(data)


class ScriptedRedis:
    """A Redis server with given replies to the scripts of each connection, in their order.

    A script without a reply is left unanswered; a reply may contain more than one message. The last
    list is that of all further connections.
    """

    def __init__(self, *replies: Sequence[bytes]) -> None:
        self.url = ""
        self.received: list[list[list[bytes]]] = []  # the scripts of each connection
        self.silent = False  # replies to nothing: a connection is never open
        self._replies = replies

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ScriptedRedis"]:
        """Listen for the length of the block."""
        async with served(self._meet) as port:
            self.url = f"redis://127.0.0.1:{port}"
            yield self

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = min(len(self.received), len(self._replies) - 1)
        replies, scripts = iter(self._replies[number]), list[list[bytes]]()
        self.received.append(scripts)
        while True:
            words = await _command(reader)
            if self.silent:
                continue
            if words[0] == b"EVALSHA":
                scripts.append(words)
                writer.write(next(replies, b""))
            else:
                writer.write(b"+OK\r\n")


async def _command(reader: asyncio.StreamReader) -> list[bytes]:
    count = int((await reader.readline())[1:])
    words = []
    for _ in range(count):
        size = int((await reader.readline())[1:])
        words.append((await reader.readexactly(size + 2))[:-2])
    return words
