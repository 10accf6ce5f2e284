"""Limits on the size and duration of each state of a connection, with raw sockets."""

import asyncio
from collections.abc import Callable

import pytest

from harness.network.raw_connections import HOST, CutError, RawAnswer, RawHttp, chunked, posting
from harness.services.http_application import (
    BRIEF,
    GET,
    MIB,
    PART,
    ServedApplication,
    closed,
    place,
    within,
)
from harness.waits import until
from toolbus_common.http_server.limits import Limits

# -- size ------------------------------------------------------------------------------------------

CHUNKED_HEAD = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
FLOODS: dict[str, tuple[bytes, bytes]] = {
    "headers": (b"GET / HTTP/1.1\r\n" + HOST, b"X-Y: " + b"y" * 1000 + b"\r\n"),
    "one header": (b"GET / HTTP/1.1\r\n" + HOST + b"X-Y: ", b"y" * 1000),
    "a URL": (b"GET /", b"y" * 1000),
    "empty lines": (b"", b"\r\n" * 500),
    "trailers": (CHUNKED_HEAD + b"2\r\n{}\r\n0\r\n", b"X-Y: " + b"y" * 1000 + b"\r\n"),
    "one trailer": (CHUNKED_HEAD + b"2\r\n{}\r\n0\r\nX-Y: ", b"y" * 1000),
    "one chunk extension": (CHUNKED_HEAD + b"2;", b"y" * 1000),
    "extensions of many chunks": (CHUNKED_HEAD, b"1;" + b"y" * 1000 + b"\r\nx\r\n"),
    "zeros of a chunk's size": (CHUNKED_HEAD, b"0" * 1000),
}


@pytest.mark.parametrize("what", FLOODS)
async def test_everything_but_the_body_is_limited_in_size(what: str) -> None:
    start, more = FLOODS[what]
    async with place() as here:
        before = closed("large_head")

        def flood() -> int:
            with here.connect() as connection:
                connection.send(start)
                return connection.flood(more, 64 * MIB)

        sent = await asyncio.to_thread(flood)
        assert sent < 64 * MIB
        assert closed("large_head") == before + 1
        assert not here.app.bodies
        await until(lambda: not here.open, "the connection has ended")


async def test_small_chunks_are_accepted() -> None:
    body = b"x" * 60_000
    start = CHUNKED_HEAD
    chunks = [b"1\r\nx\r\n" * 10_000] * 6
    async with place() as here:
        answer = await here.answer_to(start, *chunks, b"0\r\nX-Checksum: 1\r\n\r\n")
        assert (answer.status, answer.body) == (200, body)


async def test_trailers_never_become_headers() -> None:
    trailers = b"0\r\nAuthorization: Bearer x\r\nHost: evil.example\r\nContent-Type: a/b\r\n\r\n"
    async with place() as here:
        answer = await here.answer_to(chunked("POST", "/", b"{}", end=trailers))
        assert answer.body == b"{}"
        (scope,) = here.app.seen
        assert sorted(name for name, _ in scope["headers"]) == [b"host", b"transfer-encoding"]


async def test_pipelined_requests_are_answered_in_order_up_to_a_limit() -> None:
    def exchange(here: ServedApplication, number: int) -> list[RawAnswer]:
        found: list[RawAnswer] = []
        with here.connect() as connection:
            connection.send(posting("/", b"%d" % number) * number)
            try:
                while len(found) < number:
                    found.append(connection.answer())
            except CutError:
                pass
        return found

    async with place() as here:
        assert len(await asyncio.to_thread(exchange, here, 8)) == 8
        answers = await asyncio.to_thread(exchange, here, 500)
        assert len(answers) < 20
        assert answers[-1].closes


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 26\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"]
)
async def test_a_body_after_an_ignored_upgrade_is_no_request(framing: bytes) -> None:
    smuggled = b"GET /smuggled HTTP/1.1\r\n\r\n"
    body = smuggled if b"Length" in framing else b"1a\r\n" + smuggled + b"\r\n0\r\n\r\n"
    head = b"POST /first HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
    async with place() as here:

        def exchange() -> list[bytes]:
            with here.connect() as connection:
                connection.send(head + framing)
                connection.send(body + GET)
                return [connection.answer().body, connection.answer().body]

        assert await asyncio.to_thread(exchange) == [smuggled, b""]
        assert [scope["path"] for scope in here.app.seen] == ["/first", "/"]


async def test_garbage_after_a_request_does_not_prevent_its_answer() -> None:
    async with place() as here:

        def exchange() -> RawAnswer:
            with here.connect() as connection:
                connection.send(posting("/held", b"first"))
                connection.send(b"\x00garbage\r\n\r\n")
                return connection.answer()

        before = closed("malformed")
        asking = asyncio.create_task(asyncio.to_thread(exchange))
        await until(lambda: closed("malformed") > before, "the garbage was received")
        here.app.go.set()
        answer = await asking
        assert (answer.status, answer.body, answer.closes) == (200, b"first", True)


# -- time ------------------------------------------------------------------------------------------


async def ends(here: ServedApplication, connection: RawHttp, reason: str, before: float) -> None:
    assert await asyncio.to_thread(connection.ended)
    await until(lambda: not here.open, "the connection has ended")
    assert closed(reason) == before + 1


async def test_an_idle_connection_is_closed_after_its_answer() -> None:
    async with place(within(idle_seconds=BRIEF)) as here:
        before = closed("idle")
        with here.connect() as connection:
            connection.send(GET)
            assert not (await asyncio.to_thread(connection.answer)).closes
            await ends(here, connection, "idle", before)


@pytest.mark.parametrize("start", [b"", b"\r\n", b"GET / HT", GET[:-2]])
async def test_a_missing_head_times_out(start: bytes) -> None:
    async with place(within(head_seconds=BRIEF)) as here:
        reason = "head" if start else "idle"
        before = closed(reason)
        with here.connect() as connection:
            connection.send(start)
            await ends(here, connection, reason, before)


async def test_a_missing_second_head_times_out() -> None:
    async with place(within(head_seconds=BRIEF)) as here:
        before = closed("head")
        with here.connect() as connection:
            connection.send(GET)
            await asyncio.to_thread(connection.answer)
            connection.send(b"GET / HT")
            await ends(here, connection, "head", before)


@pytest.mark.parametrize("sent", [b"", b"half"])
async def test_a_missing_body_is_answered_408(sent: bytes) -> None:
    async with place(within(body_seconds=BRIEF)) as here:
        before = closed("body")
        with here.connect() as connection:
            connection.send(posting("/", sent, length=500))
            answer = await asyncio.to_thread(connection.answer)
            assert (answer.status, answer.closes) == (408, True)
            await ends(here, connection, "body", before)
        assert (here.app.cut, here.app.bodies) == (1, [])


async def test_a_slowly_dripping_body_does_not_hold_a_connection() -> None:
    async with place(within(body_seconds=BRIEF)) as here:
        with here.connect() as connection:
            connection.send(posting("/", b"", length=10 * MIB))
            dripping = asyncio.create_task(drip(connection, lambda: not here.app.cut))
            answer = await asyncio.to_thread(connection.answer)
            assert answer.status == 408
            await dripping


async def drip(connection: RawHttp, on: Callable[[], bool]) -> None:
    while on():
        connection.send(b"x")
        await asyncio.sleep(0.01)


async def test_a_client_that_never_reads_its_answer_is_disconnected() -> None:
    async with place(within(write_seconds=BRIEF)) as here:
        before = closed("write")
        with here.connect() as connection:
            connection.send(posting("/endless", b""))
            await until(lambda: closed("write") == before + 1, "the write timed out")
            await until(lambda: not here.open, "the connection has ended")


async def test_a_running_request_is_not_idle() -> None:
    brief = Limits(head_seconds=BRIEF, body_seconds=BRIEF, idle_seconds=BRIEF, write_seconds=BRIEF)
    async with place(brief) as here:
        with here.connect() as held:
            held.send(posting("/held", b"still here"))
            await until(lambda: here.app.bodies, "the request runs")
            for _ in range(3):  # other connections open and time out meanwhile
                with here.connect() as idle:
                    assert await asyncio.to_thread(idle.ended)
            here.app.go.set()
            assert (await asyncio.to_thread(held.answer)).body == b"still here"


async def test_an_answer_before_the_body_ends_the_connection() -> None:
    async with place() as here:

        def exchange() -> tuple[RawAnswer, bool]:
            with here.connect() as connection:
                connection.send(posting("/refused", b"x" * 1000, length=64 * MIB))
                answer = connection.answer()
                return answer, connection.flood(PART, 64 * MIB) < 64 * MIB

        answer, stopped = await asyncio.to_thread(exchange)
        assert (answer.status, answer.closes) == (401, True)
        assert stopped


async def test_a_client_that_sends_a_large_rejected_body_gets_the_answer() -> None:
    async with place() as here:

        def exchange() -> RawAnswer:
            with here.connect() as connection:
                connection.send(posting("/refused", b"x" * 8 * MIB))
                return connection.answer()

        for _ in range(5):
            assert (await asyncio.to_thread(exchange)).status == 401
