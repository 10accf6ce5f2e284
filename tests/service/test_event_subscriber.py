"""Subscribers of the event stream on a real bus: each pull reaches the handler as it is."""

import asyncio
from math import inf

from harness.audit.events import bus_of
from harness.waits import until, until_async
from toolbus_common.messaging.broker import EventBatch, ServiceBroker
from toolbus_common.nats.connection import Bus, Envelope
from toolbus_common.nats.topology import EVENTS as STREAM
from toolbus_common.settings import Settings

SUBJECT = "tb.event.call.allowed.acme"
EVENTS = 7


async def test_a_full_pull_is_followed_by_an_empty_one_when_no_more_events_arrive(
    settings: Settings, operator: Bus
) -> None:
    assert operator.connected
    async with bus_of("policy", settings) as policy, bus_of("audit", settings) as audit:
        for number in range(EVENTS):
            await policy.store(Envelope(SUBJECT, f"m{number}", b"event"))
        broker = ServiceBroker(audit)
        sizes: list[int] = []

        async def receive(messages: EventBatch) -> None:
            sizes.append(len(messages))

        broker.events("audit", max_messages=EVENTS, seconds=0.2)(receive)
        await broker.start()
        await until(lambda: len(sizes) > 1, "an empty pull")
        await broker.stop()
    assert sizes[:2] == [EVENTS, 0]


async def test_a_batch_in_progress_is_acknowledged_before_its_subscriber_ends(
    settings: Settings, operator: Bus
) -> None:
    async with bus_of("policy", settings) as policy, bus_of("audit", settings) as audit:
        await policy.store(Envelope(SUBJECT, "m", b"event"))
        broker, entered, released = ServiceBroker(audit), asyncio.Event(), asyncio.Event()

        async def receive(messages: EventBatch) -> None:
            if messages:
                entered.set()
                await released.wait()

        subscriber = broker.events("audit", seconds=0.2)
        subscriber(receive)
        await broker.start()
        await entered.wait()
        stopping = asyncio.create_task(broker.stop())
        await until(lambda: not subscriber.running, "the end of the subscriber")
        released.set()
        await stopping

        async def is_finished() -> bool:
            return await operator.finished(STREAM, "audit") == inf

        await until_async(is_finished, "the acknowledgement")
