"""Request handlers: sequential, or concurrent where one request may be slow."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from harness.audit.events import bus_of
from harness.engines.bus_reset import connect_as_tester
from harness.engines.nats_server import NatsServer
from harness.waits import until
from toolbus_common.contracts import PageReply, PageRequest
from toolbus_common.errors import UnavailableError
from toolbus_common.messaging import broker as broker_module
from toolbus_common.messaging.broker import ServiceBroker
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.settings import Settings


def page(path: str) -> PageRequest:
    return PageRequest(method="GET", path=path, query="", headers={}, body=b"")


async def serve(
    oauth: Bus,
    answer: Callable[[PageRequest], Awaitable[PageReply]],
    max_workers: int | None = PageRequest.AT_ONCE,
) -> ServiceBroker:
    broker = ServiceBroker(oauth)
    broker.subscriber(PageRequest.SUBJECT, queue="oauth", max_workers=max_workers)(answer)
    await broker.start()
    return broker


async def test_a_slow_page_delays_no_other(settings: Settings) -> None:
    started, done = asyncio.Event(), asyncio.Event()

    async def answer(request: PageRequest) -> PageReply:
        if request.path == "/slow":
            started.set()
            await done.wait()
        return PageReply(status=200, body=request.path.encode())

    async with bus_of("oauth", settings) as oauth, bus_of("ingress", settings) as ingress:
        answering, asking = await serve(oauth, answer), RequestReply("ingress", ingress)
        deadline = time.monotonic() + 60
        while True:
            try:
                await asking.request(page("/first"), PageReply, 60.0)
                break
            except UnavailableError:
                assert time.monotonic() < deadline
        slow = asyncio.create_task(asking.request(page("/slow"), PageReply, 120.0))
        await started.wait()
        assert (await asking.request(page("/quick"), PageReply, 60.0)).body == b"/quick"
        assert not slow.done()
        done.set()
        assert (await slow).body == b"/slow"
        await answering.stop_queries()


@pytest.mark.parametrize("max_workers", [None, PageRequest.AT_ONCE])
async def test_a_stopping_service_waits_a_moment_for_a_running_request_then_cancels_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, max_workers: int | None
) -> None:
    monkeypatch.setattr(broker_module, "QUERY_SECONDS", 0.2)
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def answer(_request: PageRequest) -> PageReply:
        started.set()
        try:
            await asyncio.Future()
        finally:
            cancelled.set()
        raise AssertionError

    async with bus_of("oauth", settings) as oauth, bus_of("ingress", settings) as ingress:
        answering = await serve(oauth, answer, max_workers)
        asking = RequestReply("ingress", ingress)
        request = asyncio.create_task(asking.request(page("/never"), PageReply, 120.0))
        while not started.is_set():
            if request.done():  # the subscription did not exist yet
                request = asyncio.create_task(asking.request(page("/never"), PageReply, 120.0))
            await asyncio.sleep(0.05)
        await answering.stop_queries()
        assert cancelled.is_set()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request


@pytest.mark.parametrize("max_workers", [None, 1])
async def test_a_stopping_service_replies_to_every_request_that_has_arrived(
    settings: Settings, max_workers: int | None
) -> None:
    started, proceed = asyncio.Event(), asyncio.Event()

    async def answer(request: PageRequest) -> PageReply:
        started.set()
        await proceed.wait()
        return PageReply(status=200, body=request.path.encode())

    paths = [f"/{number}" for number in range(3)]
    async with bus_of("oauth", settings) as oauth, bus_of("ingress", settings) as ingress:
        answering = await serve(oauth, answer, max_workers)
        await oauth.settled()
        asking = RequestReply("ingress", ingress)
        requests = [
            asyncio.create_task(asking.request(page(path), PageReply, 60.0)) for path in paths
        ]
        await started.wait()
        stopping = asyncio.create_task(answering.stop_queries())
        await asyncio.sleep(0)
        proceed.set()
        await stopping
        assert [reply.body.decode() for reply in await asyncio.gather(*requests)] == paths


async def test_a_server_that_answers_after_the_wait_for_queries_does_not_end_the_connection(
    own_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "QUERY_SECONDS", 0.1)
    received = asyncio.Event()

    async def answer(_request: PageRequest) -> PageReply:
        raise AssertionError

    async with connect_as_tester(own_nats.at) as bus:
        answering = await serve(bus, answer)
        await bus.settled()
        own_nats.freeze()
        try:
            await answering.stop_queries()
        finally:
            own_nats.thaw()
        await bus.subscribe(PageRequest.SUBJECT, lambda *_: received.set())
        await bus.publish(PageRequest.SUBJECT, b"")
        await until(received.is_set, "a message")
