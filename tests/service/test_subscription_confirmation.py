"""Subscriptions at a bus that answers late, or is lost before it answers."""

import asyncio

from harness.engines.bus_reset import connect_as_tester
from harness.engines.nats_server import NatsServer
from harness.waits import PATIENCE, until


async def test_a_late_server_is_waited_for_and_then_delivers(
    own_nats: NatsServer,
) -> None:
    async with connect_as_tester(own_nats.at) as bus:
        received: list[bytes] = []
        await bus.subscribe("told", lambda payload, *_: received.append(payload))
        own_nats.freeze()
        settling = asyncio.create_task(bus.settled())
        try:
            early, _ = await asyncio.wait({settling}, timeout=2.5)
        finally:
            own_nats.thaw()
        assert not early
        await asyncio.wait_for(settling, PATIENCE)
        await bus.publish("told", b"something")
        await until(lambda: received, "the message after the late answer")


async def test_a_server_killed_before_its_answer_gets_the_subscription_again(
    own_nats: NatsServer,
) -> None:
    async with connect_as_tester(own_nats.at) as bus:
        received: list[bytes] = []
        own_nats.freeze()
        await bus.subscribe("told", lambda payload, *_: received.append(payload))
        settling = asyncio.create_task(bus.settled())
        own_nats.kill()
        own_nats.start()
        await asyncio.wait_for(settling, PATIENCE)
        assert bus.connected
        await bus.publish("told", b"something")
        await until(lambda: received, "the message after the restart")
