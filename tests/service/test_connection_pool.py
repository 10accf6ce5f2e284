"""The connection pool of one server: a closed pool leaves no connection open."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from harness.network.tcp_servers import served
from harness.services.call_runner import AT_LOOPBACK
from toolbus_executor.transport import http1
from toolbus_executor.transport.http1 import Pool

REQUEST = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 0\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"9\r\ndata: {}\n\r\n"
)
WITH_TRAILER = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2\r\n{}\r\n0\r\nContent-Type: text/event-stream\r\nX-Trailer: 1\r\n\r\n"
)


class SlowServer:
    """A server that answers one request on demand, and notices the end of its connection."""

    def __init__(self, answer: bytes) -> None:
        self.requested = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.disconnected = asyncio.Event()
        self.port = 0
        self._answer = answer

    @property
    def url(self) -> str:
        """The URL of the server."""
        return f"http://127.0.0.1:{self.port}/"

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.requested.set()
        await self.may_answer.wait()
        writer.write(self._answer)
        try:
            await reader.read()
        finally:
            self.disconnected.set()


@pytest.fixture
async def streaming_server() -> AsyncIterator[SlowServer]:
    server = SlowServer(STREAM)
    async with served(server.meet) as server.port:
        yield server


@pytest.fixture
async def answering_server() -> AsyncIterator[SlowServer]:
    server = SlowServer(WHOLE)
    async with served(server.meet) as server.port:
        yield server


async def test_an_unfinished_stream_is_closed_with_its_pool(
    streaming_server: SlowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http1, "END_SECONDS", 3600.0)  # the timeout that would close it otherwise
    pool = Pool(streaming_server.url, AT_LOOPBACK)
    streaming_server.may_answer.set()
    await pool.request(REQUEST, on_stream=lambda piece: b"data" in piece)
    assert not streaming_server.disconnected.is_set()
    pool.close()
    async with asyncio.timeout(30):
        await streaming_server.disconnected.wait()


async def test_a_connection_in_use_is_closed_when_it_returns_to_a_closed_pool(
    answering_server: SlowServer,
) -> None:
    pool = Pool(answering_server.url, AT_LOOPBACK)
    asking = asyncio.create_task(pool.request(REQUEST))
    await answering_server.requested.wait()
    pool.close()
    answering_server.may_answer.set()
    _, body = await asking
    assert body == b"{}"
    async with asyncio.timeout(30):
        await answering_server.disconnected.wait()


async def test_trailers_are_not_headers_of_the_next_response() -> None:
    connections = 0

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for answer in (WITH_TRAILER, WHOLE):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
        await reader.read()

    async with served(meet) as port:
        pool = Pool(f"http://127.0.0.1:{port}/", AT_LOOPBACK)
        for _ in range(2):
            head, body = await pool.request(REQUEST)
            assert body == b"{}"
        assert head.headers == {b"content-length": b"2"}
        assert connections == 1
        pool.close()
