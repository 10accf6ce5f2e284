"""Pulls of a durable consumer on a real bus: whole batches, in order, and nothing twice."""

from collections.abc import AsyncIterator

import pytest

from harness.audit.events import bus_of
from toolbus_common.errors import BusDownError
from toolbus_common.nats.connection import Bus, Envelope
from toolbus_common.nats.pull_consumer import PullConsumer, ack_position
from toolbus_common.nats.stream_reader import read_from
from toolbus_common.nats.topology import EVENTS
from toolbus_common.settings import Settings

SUBJECT = "tb.event.call.allowed.acme"


@pytest.fixture
async def events(settings: Settings, operator: Bus) -> AsyncIterator[list[bytes]]:
    """Publish seven events to the stream."""
    assert operator.connected
    async with bus_of("policy", settings) as policy:
        lines = [b"event %d" % number for number in range(7)]
        for number, line in enumerate(lines):
            await policy.store(Envelope(SUBJECT, f"m{number}", line))
        yield lines


@pytest.fixture
async def consumer(settings: Settings, operator: Bus) -> AsyncIterator[PullConsumer]:
    assert operator.connected
    async with bus_of("audit", settings) as bus:
        consumer = PullConsumer(bus.client, EVENTS, "audit")
        await consumer.open()
        yield consumer
        await consumer.close()


async def test_a_batch_ends_when_it_is_full_and_the_rest_comes_with_the_next(
    consumer: PullConsumer, events: list[bytes]
) -> None:
    batches = [await consumer.next(3, seconds) for seconds in (60.0, 60.0, 2.0)]
    assert [[each.data for each in batch] for batch in batches] == [
        events[:3],
        events[3:6],
        events[6:],
    ]
    assert [ack_position(each.reply)[0] for each in batches[0]] == [1, 2, 3]
    assert ack_position(batches[0][0].reply) == (1, 1, 6)


async def test_a_quiet_consumer_returns_nothing_without_an_error(consumer: PullConsumer) -> None:
    assert await consumer.next(3, 0.1) == []


async def test_a_negatively_acknowledged_message_is_delivered_again_and_counted(
    consumer: PullConsumer, events: list[bytes]
) -> None:
    first = await consumer.next(len(events), 60.0)
    for message in first[1:]:
        await message.ack()
    await first[0].nak()
    (again,) = await consumer.next(1, 60.0)
    assert (again.data, ack_position(again.reply)[:2]) == (events[0], (1, 2))


async def test_a_message_with_a_status_header_is_still_a_message(
    consumer: PullConsumer, operator: Bus, settings: Settings
) -> None:
    assert operator.connected
    async with bus_of("policy", settings) as policy:
        stream = policy.client.jetstream()
        await stream.publish(SUBJECT, b"an event", headers={"Status": "404"})
        await stream.publish(SUBJECT, b"another")
    assert [each.data for each in await consumer.next(2, 60.0)] == [b"an event", b"another"]
    async with bus_of("audit", settings) as audit:
        stored = await read_from(audit.client, EVENTS, 1, "tb.event.>")
    assert [each.data for each in stored] == [b"an event", b"another"]


async def test_a_missing_consumer_is_an_error(operator: Bus) -> None:
    pulls = PullConsumer(operator.client, EVENTS, "nobody")
    await pulls.open()
    with pytest.raises(BusDownError, match="returned no messages: 503"):
        await pulls.next(1, 60.0)
    await pulls.close()


def test_a_position_is_read_from_a_reply_with_and_without_a_domain() -> None:
    assert ack_position("$JS.ACK.EVENTS.audit.2.41.40.1763708342.7") == (41, 2, 7)
    assert ack_position("$JS.ACK.hub.hash.EVENTS.audit.2.41.40.1763708342.7.token") == (41, 2, 7)
