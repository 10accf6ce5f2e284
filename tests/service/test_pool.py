"""The pool of connections to one server: what is closed leaves nothing open."""

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


class Slow:
    """Answers one request when it is told to, and notices when its connection ends."""

    def __init__(self, answer: bytes) -> None:
        self.asked = asyncio.Event()
        self.told = asyncio.Event()
        self.left = asyncio.Event()
        self.port = 0
        self._answer = answer

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}/"

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked.set()
        await self.told.wait()
        writer.write(self._answer)
        try:
            await reader.read()
        finally:
            self.left.set()


@pytest.fixture
async def streaming() -> AsyncIterator[Slow]:
    made = Slow(STREAM)
    async with served(made.meet) as made.port:
        yield made


@pytest.fixture
async def answering() -> AsyncIterator[Slow]:
    made = Slow(WHOLE)
    async with served(made.meet) as made.port:
        yield made


async def test_a_stream_that_has_yet_to_end_is_closed_with_its_pool(
    streaming: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http1, "END_SECONDS", 3600.0)  # by itself it would be closed after this
    pool = Pool(streaming.url, AT_LOOPBACK)
    streaming.told.set()
    await pool.request(REQUEST, on_stream=lambda piece: b"data" in piece)
    assert not streaming.left.is_set()
    pool.close()
    async with asyncio.timeout(30):
        await streaming.left.wait()


async def test_a_connection_in_use_is_closed_when_it_comes_back_to_a_closed_pool(
    answering: Slow,
) -> None:
    pool = Pool(answering.url, AT_LOOPBACK)
    asking = asyncio.create_task(pool.request(REQUEST))
    await answering.asked.wait()
    pool.close()
    answering.told.set()
    _, body = await asking
    assert body == b"{}"
    async with asyncio.timeout(30):
        await answering.left.wait()
