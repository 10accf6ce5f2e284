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
async def said(settings: Settings, operator: Bus) -> AsyncIterator[list[bytes]]:
    """Seven events in the stream."""
    assert operator.connected
    async with bus_of("policy", settings) as policy:
        lines = [b"event %d" % number for number in range(7)]
        for number, line in enumerate(lines):
            await policy.store(Envelope(SUBJECT, f"m{number}", line))
        yield lines


@pytest.fixture
async def pulls(settings: Settings, operator: Bus) -> AsyncIterator[PullConsumer]:
    assert operator.connected
    async with bus_of("audit", settings) as bus:
        made = PullConsumer(bus.client, EVENTS, "audit")
        await made.open()
        yield made
        await made.close()


async def test_a_batch_ends_when_it_is_full_and_the_rest_comes_with_the_next(
    pulls: PullConsumer, said: list[bytes]
) -> None:
    batches = [await pulls.next(3, seconds) for seconds in (60.0, 60.0, 2.0)]
    assert [[each.data for each in batch] for batch in batches] == [said[:3], said[3:6], said[6:]]
    assert [ack_position(each.reply)[0] for each in batches[0]] == [1, 2, 3]
    assert ack_position(batches[0][0].reply) == (1, 1, 6)


async def test_a_quiet_consumer_gives_nothing_and_no_error(pulls: PullConsumer) -> None:
    assert await pulls.next(3, 0.1) == []


async def test_what_is_given_back_comes_again_and_says_so(
    pulls: PullConsumer, said: list[bytes]
) -> None:
    first = await pulls.next(len(said), 60.0)
    for message in first[1:]:
        await message.ack()
    await first[0].nak()
    (again,) = await pulls.next(1, 60.0)
    assert (again.data, ack_position(again.reply)[:2]) == (said[0], (1, 2))


async def test_a_message_that_looks_like_the_servers_word_is_taken_for_a_message(
    pulls: PullConsumer, operator: Bus, settings: Settings
) -> None:
    assert operator.connected
    async with bus_of("policy", settings) as policy:
        stream = policy.client.jetstream()
        await stream.publish(SUBJECT, b"an event", headers={"Status": "404"})
        await stream.publish(SUBJECT, b"another")
    assert [each.data for each in await pulls.next(2, 60.0)] == [b"an event", b"another"]
    async with bus_of("audit", settings) as audit:
        kept = await read_from(audit.client, EVENTS, 1, "tb.event.>")
    assert [each.data for each in kept] == [b"an event", b"another"]


async def test_a_consumer_that_is_not_there_is_an_error(operator: Bus) -> None:
    pulls = PullConsumer(operator.client, EVENTS, "nobody")
    await pulls.open()
    with pytest.raises(BusDownError, match="returned no messages: 503"):
        await pulls.next(1, 60.0)
    await pulls.close()


def test_a_place_is_read_of_a_reply_with_a_domain_and_of_one_without() -> None:
    assert ack_position("$JS.ACK.EVENTS.audit.2.41.40.1763708342.7") == (41, 2, 7)
    assert ack_position("$JS.ACK.hub.hash.EVENTS.audit.2.41.40.1763708342.7.token") == (41, 2, 7)
