"""Request handlers: sequential, or concurrent where one request may be slow."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from harness.audit.events import bus_of
from toolbus_common.contracts import PageReply, PageRequest
from toolbus_common.errors import UnavailableError
from toolbus_common.messaging.broker import ServiceBroker
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.settings import Settings


def page(path: str) -> PageRequest:
    return PageRequest(method="GET", path=path, query="", headers={}, body=b"")


async def serve(oauth: Bus, answer: Callable[[PageRequest], Awaitable[PageReply]]) -> ServiceBroker:
    broker = ServiceBroker(oauth)
    broker.subscriber(PageRequest.SUBJECT, queue="oauth", max_workers=PageRequest.AT_ONCE)(answer)
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


async def test_a_stopping_service_waits_for_no_running_request(settings: Settings) -> None:
    started = asyncio.Event()

    async def answer(_request: PageRequest) -> PageReply:
        started.set()
        await asyncio.Future()
        raise AssertionError

    async with bus_of("oauth", settings) as oauth, bus_of("ingress", settings) as ingress:
        answering, asking = await serve(oauth, answer), RequestReply("ingress", ingress)
        request = asyncio.create_task(asking.request(page("/never"), PageReply, 120.0))
        while not started.is_set():
            if request.done():  # the subscription did not exist yet
                request = asyncio.create_task(asking.request(page("/never"), PageReply, 120.0))
            await asyncio.sleep(0.05)
        await answering.stop_queries()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
