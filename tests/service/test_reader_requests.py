"""What reaches the readers' interface over HTTP is whole, and its headers are headers."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from harness.network.raw_connections import RawHttp, chunked, request
from toolbus_audit.bi_gateway.request import GatewayRequest
from toolbus_audit.bi_gateway.server import serve_readers

READER = ("X-ClickHouse-User: ann", "X-ClickHouse-Key: a-secret-of-a-reader")
SQL = b"SELECT count() FROM events"


@dataclass
class Answering:
    """Answers every reader, and keeps what each asked."""

    port: int = 0
    asked: list[GatewayRequest] = field(default_factory=list)

    async def answer(self, asked: GatewayRequest) -> tuple[str, bytes]:
        """Answer one request."""
        self.asked.append(asked)
        return "TabSeparated", b"1\n"

    def exchange(self, *requests: bytes) -> list[int]:
        """Send requests on a connection each; the statuses of those that are answered."""
        found = []
        for each in requests:
            with RawHttp(self.port) as connection:
                connection.send(each)
                found.append(connection.answer().status)
        return found


@pytest_asyncio.fixture
async def reading() -> AsyncIterator[Answering]:
    made = Answering()
    async with serve_readers(made.answer, lambda *_: None, "127.0.0.1", 0) as made.port:
        yield made


def cut(how: str) -> bytes:
    if how == "chunked":
        return chunked("POST", "/", SQL, *READER, end=b"")
    return request("POST", "/", SQL, *READER, length=len(SQL) + 1)


@pytest.mark.parametrize("how", ["length", "chunked"])
async def test_a_statement_that_is_cut_short_is_not_run(reading: Answering, how: str) -> None:
    def leave() -> None:
        with RawHttp(reading.port) as connection:
            connection.send(cut(how))
            connection.half_close()
            assert connection.ended()

    await asyncio.to_thread(leave)
    whole = chunked("POST", "/", b"SELECT 2", *READER)
    assert await asyncio.to_thread(reading.exchange, whole) == [200]
    assert [requested.sql for requested in reading.asked] == ["SELECT 2"]


async def test_a_reader_is_named_by_headers_and_not_by_trailers(reading: Answering) -> None:
    trailers = "".join(f"{line}\r\n" for line in READER).encode()
    late = chunked("POST", "/", SQL, end=b"0\r\n" + trailers + b"\r\n")
    await asyncio.to_thread(reading.exchange, late)
    assert "ann" not in [requested.user for requested in reading.asked]


async def test_connections_that_say_nothing_do_not_keep_readers_out(reading: Answering) -> None:
    def crowd() -> list[int]:
        silent = [RawHttp(reading.port) for _ in range(64)]
        try:
            return reading.exchange(chunked("POST", "/", SQL, *READER))
        finally:
            for each in silent:
                each.close()

    assert await asyncio.to_thread(crowd) == [200]
