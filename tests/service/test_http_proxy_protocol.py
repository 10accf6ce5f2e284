"""Listener behind load balancers that send the PROXY protocol."""

import asyncio
import struct

import pytest

from harness.network.raw_connections import RawHttp, posting
from harness.services.http_application import (
    BRIEF,
    GET,
    PATIENT,
    ServedApplication,
    closed,
    place,
    refused,
    within,
)
from harness.waits import until, until_async
from toolbus_common.http_server.acceptor import Handshake
from toolbus_common.http_server.limits import Limits
from toolbus_common.http_server.proxy_addresses import Proxies
from toolbus_common.http_server.proxy_protocol import SIGNATURE

LOCAL = Proxies.of("127.0.0.0/8")
BALANCED = Handshake(balancers=LOCAL)
CLIENT = "203.0.113.7"
LINE = f"PROXY TCP4 {CLIENT} 192.0.2.1 4711 443\r\n".encode()
BINARY = (
    SIGNATURE
    + struct.pack("!BBH", 0x21, 0x11, 12)
    + bytes((203, 0, 113, 7, 192, 0, 2, 1, 0x12, 0x67, 1, 187))
)


async def served(here: ServedApplication) -> bool:
    closing = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    return not await ended(here, LINE + closing)


async def ended(here: ServedApplication, *parts: bytes) -> bool:
    """Return whether the listener closes a connection with these bytes without a response."""

    def exchange() -> bytes:
        with here.connect() as connection:
            for part in parts:
                connection.send(part)
            return connection.rest()

    return await asyncio.to_thread(exchange) == b""


@pytest.mark.parametrize("header", [LINE, BINARY], ids=["line", "binary"])
async def test_the_header_names_the_client(header: bytes) -> None:
    async with place(PATIENT, BALANCED) as here:
        assert (await here.answer_to(header + GET)).status == 200
        assert (await here.answer_to(*(bytes([each]) for each in header), GET)).status == 200
        assert [scope["client"] for scope in here.app.seen] == [(CLIENT, 4711)] * 2


async def test_the_balancers_own_connections_count_for_it() -> None:
    async with place(PATIENT, BALANCED) as here:
        own = SIGNATURE + struct.pack("!BBH", 0x20, 0, 0)
        assert (await here.answer_to(own + GET)).status == 200
        assert here.app.seen[0]["client"][0] == "127.0.0.1"


@pytest.mark.parametrize(
    "start",
    [GET, b"\x16\x03\x01" + b"\x00" * 60, b"PROXY TCP4 x\r\n" + GET, b"PROXY " + b"1" * 200,
     SIGNATURE + b"\x21\x11\xff\xff"],
    ids=["HTTP", "TLS", "garbage", "endless line", "oversized"],
)  # fmt: skip
async def test_a_connection_without_a_valid_header_is_refused(start: bytes) -> None:
    async with place(PATIENT, BALANCED) as here:
        before = closed("proxy_header")
        assert await ended(here, start)
        assert closed("proxy_header") == before + 1
        assert not here.app.seen


async def test_a_slow_header_is_refused() -> None:
    async with place(within(head_seconds=BRIEF), BALANCED) as here:
        before = closed("proxy_header")
        assert await ended(here, LINE[:20])
        assert await ended(here, BINARY[:20])
        assert closed("proxy_header") == before + 2


async def test_an_address_that_is_no_balancer_is_refused_with_any_beginning() -> None:
    async with place(PATIENT, Handshake(balancers=Proxies.of("192.0.2.0/24"))) as here:
        before = closed("proxy_header")
        assert await ended(here, LINE + GET)
        assert await ended(here, GET)
        assert closed("proxy_header") == before + 2
        assert not here.app.seen


async def test_a_header_is_no_request_where_it_is_not_configured() -> None:
    async with place() as here:
        assert (await here.answer_to(LINE + GET)).status == 400
        assert not here.app.seen


async def test_connections_are_limited_per_client_of_the_balancer() -> None:
    async with place(Limits(per_address=1, per_loopback=1), BALANCED) as here:
        before = refused("address")
        with RawHttp(here.listener.port) as connection:
            connection.send(LINE)
            await until(lambda: here.open == 1, "the connection has started")
            assert await ended(here, LINE)
            assert refused("address") == before + 1
            other = LINE.replace(CLIENT.encode(), b"203.0.113.8")
            assert (await here.answer_to(other + GET)).status == 200
        await until(lambda: not here.open, "all have left")
        assert (await here.answer_to(LINE + GET)).status == 200


async def test_unfinished_headers_count_as_connections() -> None:
    async with place(Limits(connections=2, head_seconds=600), BALANCED) as here:
        before = refused("total")
        with here.connect(), here.connect():
            assert await ended(here, LINE)
            assert refused("total") == before + 1

        await until_async(lambda: served(here), "a connection is accepted again")


async def test_the_clients_own_forwarding_headers_are_not_used() -> None:
    request = posting("/", b"", "X-Forwarded-For: 198.51.100.1", "Forwarded: for=198.51.100.1")
    async with place(Limits(proxies=LOCAL), BALANCED) as here:
        assert (await here.answer_to(LINE + request)).status == 200
        assert here.app.seen[0]["client"][0] == CLIENT


async def test_a_proxy_behind_the_balancer_names_the_client() -> None:
    request = posting("/", b"", "X-Forwarded-For: 198.51.100.1")
    async with place(Limits(proxies=Proxies.of(CLIENT)), BALANCED) as here:
        assert (await here.answer_to(LINE + request)).status == 200
        assert here.app.seen[0]["client"][0] == "198.51.100.1"
