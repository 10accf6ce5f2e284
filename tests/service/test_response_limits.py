"""Limits of an upstream's response outside of its body: head, trailers, and the time limit."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import count

import pytest

from harness.network.tcp_servers import served
from harness.services.call_runner import AT_LOOPBACK
from toolbus_executor.transport.http1 import LARGEST_HEAD, Pool, TooLargeError

REQUEST = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 0\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
PIECE = b"x" * 4096


@asynccontextmanager
async def answering(pieces: Callable[[], Iterator[bytes]]) -> AsyncIterator[Pool]:
    """Yield a pool to a server that answers each request of a connection with these pieces."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                for piece in pieces():
                    writer.write(piece)
                    await writer.drain()

    async with served(answer) as port:
        pool = Pool(f"http://127.0.0.1:{port}/", AT_LOOPBACK)
        try:
            yield pool
        finally:
            pool.close()


def endless_header() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nX-Endless: "
    while True:
        yield PIECE


def endless_headers() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    for number in count():
        yield b"X-%d: %b\r\n" % (number, PIECE)


def endless_trailers() -> Iterator[bytes]:
    yield CHUNKED
    for number in count():
        yield b"X-%d: %b\r\n" % (number, PIECE)


def large_head() -> Iterator[bytes]:
    lines = b"".join(b"X-%d: %b\r\n" % (number, PIECE) for number in range(17))
    yield WHOLE.replace(b"\r\n\r\n", b"\r\n%b\r\n" % lines)


@pytest.mark.parametrize("pieces", [endless_header, endless_headers, endless_trailers, large_head])
async def test_everything_but_the_body_of_a_response_is_limited(
    pieces: Callable[[], Iterator[bytes]],
) -> None:
    async with answering(pieces) as pool:
        with pytest.raises(TooLargeError, match=str(LARGEST_HEAD)):
            await pool.request(REQUEST, seconds=60)


async def test_header_names_are_lower_case_and_trailers_are_ignored() -> None:
    def pieces() -> Iterator[bytes]:
        yield CHUNKED.replace(b"\r\n\r\n", b"\r\nX-Kept:  value \r\n\r\n")
        yield b"X-Trailer: ignored\r\n\r\n"

    async with answering(pieces) as pool:
        for _ in range(2):  # on one connection: a trailer is no header of the next response
            head, body = await pool.request(REQUEST, seconds=60)
            assert head.headers == {b"transfer-encoding": b"chunked", b"x-kept": b"value"}
            assert body == b"{}"


async def test_an_interim_response_is_no_response_and_leaves_no_header() -> None:
    def pieces() -> Iterator[bytes]:
        yield b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        yield WHOLE

    async with answering(pieces) as pool:
        head, body = await pool.request(REQUEST, seconds=60)
        assert (head.status, head.headers, body) == (200, {b"content-length": b"2"}, b"{}")


async def test_a_reused_connection_observes_the_time_limit_of_each_request() -> None:
    limits = iter([WHOLE, WHOLE])

    def pieces() -> Iterator[bytes]:
        yield next(limits, b"")

    async with answering(pieces) as pool:
        await pool.request(REQUEST, seconds=3600)
        await pool.request(REQUEST, seconds=None)
        with pytest.raises(TimeoutError):  # although the timer of the first request is later
            await pool.request(REQUEST, seconds=1.0)
