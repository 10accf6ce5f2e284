"""A member that leaves a queue of the bus handles every message that the bus has given to it."""

import asyncio

from harness.audit.events import bus_of
from harness.waits import until
from toolbus_common.contracts import CallRequested
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


async def _send(bus: Bus) -> None:
    """Send the messages one after another, so that some are under way at every moment."""
    for number in range(MESSAGES):
        await bus.publish(SUBJECT, str(number).encode())
        await asyncio.sleep(0)
