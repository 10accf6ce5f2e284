"""Requests of readers over HTTP: complete, and with headers that are no trailers."""

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
class AnsweringService:
    """A query service that answers every reader, and records the requests."""

    port: int = 0
    requests: list[GatewayRequest] = field(default_factory=list)

    async def answer(self, requests: GatewayRequest) -> tuple[str, bytes]:
        """Answer one request."""
        self.requests.append(requests)
        return "TabSeparated", b"1\n"

    def send_each(self, *requests: bytes) -> list[int]:
        """Send each request on its own connection; return the statuses of the answered ones."""
        found = []
        for each in requests:
            with RawHttp(self.port) as connection:
                connection.send(each)
                found.append(connection.answer().status)
        return found


@pytest_asyncio.fixture
async def service() -> AsyncIterator[AnsweringService]:
    answering = AnsweringService()
    async with serve_readers(answering.answer, lambda *_: None, "127.0.0.1", 0) as answering.port:
        yield answering


def cut(how: str) -> bytes:
    if how == "chunked":
        return chunked("POST", "/", SQL, *READER, end=b"")
    return request("POST", "/", SQL, *READER, length=len(SQL) + 1)


@pytest.mark.parametrize("how", ["length", "chunked"])
async def test_a_truncated_statement_is_not_run(service: AnsweringService, how: str) -> None:
    def leave() -> None:
        with RawHttp(service.port) as connection:
            connection.send(cut(how))
            connection.half_close()
            assert connection.ended()

    await asyncio.to_thread(leave)
    whole = chunked("POST", "/", b"SELECT 2", *READER)
    assert await asyncio.to_thread(service.send_each, whole) == [200]
    assert [requested.sql for requested in service.requests] == ["SELECT 2"]


async def test_a_reader_is_authenticated_by_headers_and_not_by_trailers(
    service: AnsweringService,
) -> None:
    trailers = "".join(f"{line}\r\n" for line in READER).encode()
    late = chunked("POST", "/", SQL, end=b"0\r\n" + trailers + b"\r\n")
    await asyncio.to_thread(service.send_each, late)
    assert "ann" not in [requested.user for requested in service.requests]


async def test_silent_connections_do_not_block_readers(service: AnsweringService) -> None:
    def crowd() -> list[int]:
        silent = [RawHttp(service.port) for _ in range(64)]
        try:
            return service.send_each(chunked("POST", "/", SQL, *READER))
        finally:
            for each in silent:
                each.close()

    assert await asyncio.to_thread(crowd) == [200]
