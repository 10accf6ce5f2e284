"""Subscribers of the event stream on a real bus: each pull reaches the handler as it is."""

from harness.audit.events import bus_of
from harness.waits import until
from toolbus_common.messaging.broker import EventBatch, ServiceBroker
from toolbus_common.nats.connection import Bus, Envelope
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
