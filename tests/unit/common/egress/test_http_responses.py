"""What the HTTP client accepts as a response, and where it stops reading."""

import asyncio
import gzip
from threading import Event

import pytest

from harness.network.hostile_http import AT_LOOPBACK, BOUND, CHUNKED, HEAD, OK, got, peer
from harness.network.tcp_servers import served
from toolbus_common.egress import Target
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.http_messages import HttpError, HttpRequest
from toolbus_common.egress.resolver import CheckedResolver


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (CHUNKED + b"2;x=y\r\nok\r\n0\r\nTrailer: 1\r\n\r\n", b"ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + OK, b"ok"),
        (OK + b"HTTP/1.1 500 Another\r\nContent-Length: 3\r\n\r\nbad", b"ok"),
        (HEAD + b"Content-Length: 2\r\n\r\nok, and more than was announced", b"ok"),
    ],
    ids=["1.0 to the end", "1.0", "trailers", "interim", "a second response", "excess"],
)
async def test_a_response_ends_where_its_head_says(answer: bytes, body: bytes) -> None:
    async with peer(answer) as (_, url):
        assert (await got(url)).body == body


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"<html>HTTP/0.9</html>\r\n\r\n", "not valid HTTP"),
        (b"HTTP/1.1 OK 200\r\n\r\n", "not valid HTTP"),
        (HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok", "not valid HTTP"),
        (HEAD + b"Content-Length: -2\r\n\r\nok", "not valid HTTP"),
        (HEAD + b"Content-Length: 9\r\n\r\nless", "not valid HTTP"),
        (HEAD + b"no colon\r\n\r\n", "not valid HTTP"),
        (CHUNKED + b"fffffffffffffffffffffffff\r\nx", "not valid HTTP"),
        (CHUNKED + b"2\r\nok and no end of the chunk", "not valid HTTP"),
        (b"", "closed the connection without a response"),
        (HEAD + b"A: b\r\n" * 101 + b"\r\n", "more than 100 headers"),
        (HEAD + b"A: " + b"b" * 200_000 + b"\r\n\r\n", "headers of its response are too large"),
    ],
    ids=[
        "0.9", "status", "two lengths", "negative length", "short body", "header without a colon",
        "chunk size", "short chunk", "nothing", "101 headers", "long header",
    ],
)  # fmt: skip
async def test_a_malformed_response_is_an_error(answer: bytes, reason: str) -> None:
    async with peer(answer) as (_, url):
        with pytest.raises(HttpError, match=reason):
            await got(url)


@pytest.mark.parametrize(
    ("beginning", "endless", "reason"),
    [
        (HEAD, b"X-More: and more\r\n", "headers of its response are too large"),
        (HEAD + b"\r\n", b"x" * 1000, "larger than 100000 bytes"),
        (CHUNKED, b"3e8\r\n%b\r\n" % (b"x" * 1000), "larger than 100000 bytes"),
        (CHUNKED, b"1;" + b"x" * 1000, "not valid HTTP|too large"),
        (CHUNKED + b"0\r\n", b"X-More: and more\r\n", "not valid HTTP|too large"),
    ],
    ids=["headers", "body", "chunks", "chunk extension", "trailers"],
)
async def test_a_response_without_end_is_cut_off(
    beginning: bytes, endless: bytes, reason: str
) -> None:
    async with peer(beginning, endless) as (found, url):
        with pytest.raises(HttpError, match=reason):
            await got(url)
        await found.closed.wait()


async def test_the_beginning_of_a_body_is_enough_where_the_request_allows_it() -> None:
    async with peer(CHUNKED, b"3e8\r\n%b\r\n" % (b"x" * 1000)) as (found, url):
        response = await got(url, cut=True)
        await found.closed.wait()
    assert (response.status, response.body) == (200, b"x" * 100_000)


async def test_a_compressed_body_is_not_decompressed() -> None:
    bomb = gzip.compress(bytes(20_000_000))
    head = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    async with peer(head + bomb) as (found, url):
        assert (await got(url)).body == bomb
    assert b"\r\naccept-encoding: identity\r\n" in found.heads[0]


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        HEAD + b"X-Slow: ",
        HEAD + b"Content-Length: 99999\r\n\r\n",
        CHUNKED,
        CHUNKED + b"2\r\nok\r\n",
    ],
    ids=["status line", "header", "body", "size of the first chunk", "size of the next chunk"],
)
async def test_a_server_that_sends_single_bytes_is_not_waited_for(beginning: bytes) -> None:
    async with peer(beginning, drips=True) as (found, url):
        with pytest.raises(HttpError, match=r"did not respond within 0\.2 s|not valid HTTP"):
            await got(url, seconds=0.2)
        await found.closed.wait()


async def test_interim_responses_do_not_extend_the_time_limit() -> None:
    async with peer(b"", b"HTTP/1.1 100 Continue\r\n\r\n") as (found, url):
        with pytest.raises(HttpError, match=r"did not respond within 0\.2 s"):
            await got(url, seconds=0.2)
        await found.closed.wait()


async def test_a_connection_is_closed_when_its_tls_handshake_takes_too_long() -> None:
    ended = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the client is gone
        ended.set()

    async with asyncio.timeout(BOUND), served(silent) as port:
        with pytest.raises(HttpError, match="did not respond within"):
            await got(f"https://peer.example:{port}/", seconds=0.5)
        await ended.wait()


async def test_a_lookup_that_takes_too_long_ends_its_request_and_delays_no_other_host() -> None:
    release, lookups = Event(), list[str]()

    def slow(target: Target) -> list[str]:
        lookups.append(target.host)
        if target.host == "slow.example":
            release.wait(BOUND)
        return ["127.0.0.1"]

    async with peer() as (_, url):
        resolver = CheckedResolver(AT_LOOPBACK, lookup=slow)
        sender = HttpClient(resolver)
        late = HttpRequest("GET", url.replace("peer", "slow"), seconds=0.2)
        results = await asyncio.gather(
            *(sender.send(late) for _ in range(40)), return_exceptions=True
        )
        assert {str(each) for each in results} == {"it did not respond within 0.2 s"}
        assert (await sender.send(HttpRequest("GET", url))).accepted
        assert lookups == ["slow.example", "peer.example"]
        release.set()
        resolver.close()
