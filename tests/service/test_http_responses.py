"""Responses of the HTTP listener as bytes on a socket: framing, failures, disconnections."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from harness.network.raw_connections import HOST, CutError, RawAnswer, RawHttp, posting, request
from harness.services.http_application import GET, PATIENT
from harness.waits import until
from toolbus_common.http_server.body import read_body
from toolbus_common.http_server.exchange import App
from toolbus_common.http_server.listener import Listener
from toolbus_common.service.asgi_server import serving

START: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}
PARTS = [b"first", b"", b"second" * 1000]


def part(body: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


def sized(length: int) -> dict[str, Any]:
    return {**START, "headers": [(b"Content-Length", b"%d" % length)]}


@asynccontextmanager
async def served(app: App) -> AsyncIterator[Listener]:
    async with serving(app, "agents", "127.0.0.1", 0, PATIENT, 5.0) as listener:
        try:
            yield listener
        finally:
            for connection in tuple(listener.connections):
                connection.transport.abort()


def sending(*messages: dict[str, Any]) -> App:
    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive, 1024)
        for message in messages:
            await send(message)

    return app


async def exchange(app: App, work: Callable[[RawHttp], Any]) -> Any:
    """Return what `work` finds out on a new connection, in a thread."""
    async with served(app) as listener:

        def connected() -> Any:
            with RawHttp(listener.port) as connection:
                return work(connection)

        return await asyncio.to_thread(connected)


@asynccontextmanager
async def unread(app: App) -> AsyncIterator[RawHttp]:
    """Yield a connection that has not read a response, when its handler waits for it to read."""
    async with served(app) as listener:
        with RawHttp(listener.port) as connection:
            connection.send(GET)
            (here,) = await until(lambda: tuple(listener.connections), "the connection is open")
            await until(lambda: here.write_paused, "the handler waits")
            yield connection


def answer_to(data: bytes) -> Callable[[RawHttp], RawAnswer]:
    def ask(connection: RawHttp) -> RawAnswer:
        connection.send(data)
        return connection.answer()

    return ask


def bytes_after(data: bytes) -> Callable[[RawHttp], bytes]:
    """Return all bytes until the server closes the connection."""

    def ask(connection: RawHttp) -> bytes:
        connection.send(data)
        return connection.rest()

    return ask


async def test_a_body_without_a_length_is_chunked_and_the_connection_stays() -> None:
    app = sending(START, *(part(each, more=True) for each in PARTS), part(b""))

    def twice(connection: RawHttp) -> list[RawAnswer]:
        return [answer_to(GET)(connection) for _ in range(2)]

    for answer in await exchange(app, twice):
        assert (answer.status, answer.body, answer.closes) == (200, b"".join(PARTS), False)


async def test_a_client_of_http_1_0_gets_no_chunks() -> None:
    app = sending(START, part(b"abc", more=True), part(b"def"))
    received = await exchange(app, bytes_after(GET.replace(b"HTTP/1.1", b"HTTP/1.0")))
    assert received == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabcdef"


async def test_a_response_to_head_has_no_body_and_the_next_request_is_answered() -> None:
    def both(connection: RawHttp) -> bytes:
        connection.send(
            request("HEAD", "/", b"") + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        )
        return connection.rest()

    received = await exchange(sending(sized(3), part(b"abc")), both)
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n"
    assert received == head + b"\r\n" + head + b"connection: close\r\n\r\nabc"


@pytest.mark.parametrize("status", [204, 304])
async def test_statuses_without_a_body_are_not_chunked(status: int) -> None:
    app = sending({**START, "status": status}, part(b""))
    answer = await exchange(app, answer_to(GET))
    assert (answer.status, b"transfer-encoding" in answer.headers) == (status, False)


async def test_a_body_is_sent_after_100_continue() -> None:
    async def echo(_scope: Any, receive: Any, send: Any) -> None:
        body = await read_body(receive, 1024)
        await send(sized(len(body)))
        await send(part(body))

    def patient(connection: RawHttp) -> RawAnswer:
        connection.send(posting("/", b"", "Expect: 100-continue", length=4))
        assert connection.answer().status == 100
        connection.send(b"body")
        return connection.answer()

    answer = await exchange(echo, patient)
    assert (answer.status, answer.body) == (200, b"body")


@pytest.mark.parametrize(
    "header",
    [(b"x-a", b"1\r\nset-cookie: b"), (b"x-a\r\nx-b", b"1"), (b"x-a", b"\x00"), (b"x a", b"1")],
)
async def test_headers_that_would_split_a_response_are_not_sent(
    header: tuple[bytes, bytes],
) -> None:
    answer = await exchange(sending({**START, "headers": [header]}, part(b"x")), answer_to(GET))
    assert (answer.status, answer.closes) == (500, True)
    assert set(answer.headers) == {b"content-type", b"content-length", b"connection"}


@pytest.mark.parametrize("lengths", [(5, 3), (3, 5)])
async def test_a_body_of_another_length_than_announced_ends_the_connection(
    lengths: tuple[int, int],
) -> None:
    announced, sent = lengths
    app = sending(sized(announced), part(b"x" * sent))
    with pytest.raises(CutError):
        await exchange(app, answer_to(GET + GET))


@pytest.mark.parametrize("messages", [[], [START], [sized(3), part(b"x", more=True)]])
@pytest.mark.parametrize("fails", [True, False])
async def test_a_handler_that_does_not_answer_completely_ends_the_connection(
    messages: list[dict[str, Any]], *, fails: bool
) -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)
        if fails:
            raise ValueError("the handler fails")

    received = await exchange(app, bytes_after(GET))
    if not messages:
        assert received.startswith(b"HTTP/1.1 500 ")
        assert b"the handler fails" not in received
    else:
        assert not received.endswith(b"0\r\n\r\n")
        assert received.count(b"HTTP/1.1") <= 1


async def test_a_handler_learns_that_its_client_has_left_and_may_still_send() -> None:
    learned: list[str] = []

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive, 1024)
        learned.append((await receive())["type"])
        await send(sized(3))
        await send(part(b"abc"))
        learned.append("sent")

    async with served(app) as listener:
        connection = RawHttp(listener.port)
        connection.send(GET)
        await until(lambda: listener.tasks, "the request runs")
        connection.close()
        await until(lambda: learned == ["http.disconnect", "sent"], "the handler has ended")
        await until(lambda: not listener.connections, "the connection has ended")


async def test_a_slow_reader_pauses_the_handler_until_it_reads() -> None:
    sent = 0

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        nonlocal sent
        await send(START)
        for _ in range(200):
            await send(part(b"x" * 65536, more=True))
            sent += 1
        await send(part(b""))

    async with unread(app) as connection:
        assert sent < 200
        answer = await asyncio.to_thread(connection.answer)
        assert len(answer.body) == 200 * 65536


async def test_a_status_without_content_has_no_length() -> None:
    app = sending({**sized(0), "status": 204}, part(b""))
    answer = await exchange(app, answer_to(GET))
    assert (answer.status, b"content-length" in answer.headers) == (204, False)


async def test_a_tunnel_is_not_opened() -> None:
    start = b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n" + HOST + b"\r\n"
    answer = await exchange(sending(sized(0), part(b"")), answer_to(start))
    assert (answer.status, answer.closes) == (400, True)


async def test_a_client_of_http_1_0_gets_no_100_continue() -> None:
    data = posting("/", b"body", "Expect: 100-continue").replace(b"HTTP/1.1", b"HTTP/1.0")
    received = await exchange(sending(sized(0), part(b"")), bytes_after(data))
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_cancelled_sender_does_not_end_another_that_waits_for_the_same_client() -> None:
    tasks: list[asyncio.Task[None]] = []

    async def flood(send: Any) -> None:
        for _ in range(200):
            await send(part(b"x" * 65536, more=True))

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        tasks.extend(asyncio.create_task(flood(send)) for _ in range(2))
        await asyncio.wait(tasks)
        await send(part(b""))

    async with unread(app) as connection:
        tasks[0].cancel()
        answer = await asyncio.to_thread(connection.answer)
        assert tasks[0].cancelled()
        assert not tasks[1].cancelled()
        assert len(answer.body) >= 200 * 65536


async def test_a_closed_connection_leaves_nothing_for_the_collector() -> None:
    async with served(sending(sized(0), part(b""))) as listener:
        connection = RawHttp(listener.port)
        await asyncio.to_thread(answer_to(GET), connection)
        seen = [weakref.ref(each) for each in listener.connections]
        gc.disable()
        try:
            connection.close()
            await until(lambda: not listener.connections, "the connection has ended")
            await until(lambda: seen[0]() is None, "the connection is freed")
        finally:
            gc.enable()


@pytest.mark.parametrize("target", [b"/\xff", b""])
async def test_a_target_that_is_no_path_is_rejected(target: bytes) -> None:
    start = b"GET %b HTTP/1.1\r\n%b\r\n" % (target, HOST)
    answer = await exchange(sending(sized(0), part(b"")), answer_to(start))
    assert answer.status == 400


async def test_paths_are_decoded_once() -> None:
    seen: list[dict[str, Any]] = []

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        seen.append(scope)
        await send(sized(0))
        await send(part(b""))

    await exchange(app, answer_to(b"GET /a%2520b?c=%20 HTTP/1.1\r\n" + HOST + b"\r\n"))
    (scope,) = seen
    assert (scope["path"], scope["raw_path"]) == ("/a%20b", b"/a%2520b")
    assert (scope["query_string"], scope["method"]) == (b"c=%20", "GET")
