"""A member that leaves a queue of the bus handles every message that the bus has given to it."""

import asyncio

import pytest

from harness.audit.events import bus_of
from harness.engines.bus_reset import connect_as_tester
from harness.engines.nats_server import NatsServer
from harness.waits import until
from toolbus_common.contracts import CallRequested
from toolbus_common.contracts.replies import CallContext
from toolbus_common.messaging.call_transport import Call, CallTransport
from toolbus_common.messaging.local_transport import LocalTransport
from toolbus_common.nats.connection import Bus
from toolbus_common.settings import Settings

SUBJECT = f"{CallRequested.SUBJECT}.echo"
QUEUE = "policy"
MESSAGES = 5000


async def test_no_message_of_a_queue_is_lost_when_one_of_its_members_leaves(
    settings: Settings, operator: Bus
) -> None:
    assert operator.connected
    received: list[bytes] = []

    def receive(payload: bytes, _subject: str, _reply: str) -> None:
        received.append(payload)

    async with (
        bus_of("ingress", settings) as ingress,
        bus_of("policy", settings) as leaving,
        bus_of("policy", settings) as staying,
    ):
        member = await leaving.subscribe(SUBJECT, receive, queue=QUEUE)
        await staying.subscribe(SUBJECT, receive, queue=QUEUE)
        await leaving.settled()
        await staying.settled()
        sending = asyncio.create_task(_send(ingress))
        await until(lambda: bool(received), "the first message")
        await member.stop()
        await sending
        await until(lambda: len(received) >= MESSAGES, "every message")
    assert len(set(received)) == len(received) == MESSAGES


async def test_a_queue_that_is_left_without_a_connection_is_not_joined_again(
    own_nats: NatsServer,
) -> None:
    async with connect_as_tester(own_nats.at) as bus:
        calls = CallTransport("policy", bus, LocalTransport())
        await calls.serve(CallRequested, "echo", unanswered, QUEUE)
        own_nats.kill()
        await until(lambda: not bus.connected, "the loss of the connection")
        await calls.leave(CallRequested, "echo")
        own_nats.start()
        await until(lambda: bus.connected, "the connection")
        await bus.settled()
        with pytest.raises(LookupError):
            await bus.request(SUBJECT, b"", 10.0)


async def unanswered(_call: Call, _context: CallContext) -> None:
    """Reply nothing."""


async def _send(bus: Bus) -> None:
    """Send the messages one after another, so that some are under way at every moment."""
    for number in range(MESSAGES):
        await bus.publish(SUBJECT, str(number).encode())
        await asyncio.sleep(0)
