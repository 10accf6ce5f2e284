"""The fixtures themselves: real, empty, and provisioned."""

import asyncio

import redis

from harness.engines.bus_reset import connect_as_tester, reset_bus
from harness.engines.nats_server import NatsServer
from harness.waits import until
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import BUCKETS, CONFIG, DURABLES, EVENTS
from toolbus_common.settings import Settings


async def test_the_bus_is_provisioned_and_empty(operator: Bus, settings: Settings) -> None:
    stream = operator.client.jetstream()
    found = await stream.stream_info(EVENTS)
    assert found.state.messages == 0
    assert found.state.consumer_count == len(DURABLES)
    for bucket in BUCKETS:
        assert await (await operator.bucket(bucket.bucket)).get("anything") is None
    assert settings.seed("policy") is not None


async def test_a_test_does_not_see_entries_of_another(operator: Bus) -> None:
    bucket = await operator.bucket(CONFIG)
    assert await bucket.get("left-over") is None
    await bucket.put("left-over", b"{}")


async def test_another_test_does_not_see_them_either(operator: Bus) -> None:
    await test_a_test_does_not_see_entries_of_another(operator)


def test_valkey_is_running_and_empty(valkey_url: str) -> None:
    with redis.Redis.from_url(valkey_url) as client:
        assert client.dbsize() == 0
        client.set("left-over", 1)


def test_valkey_is_empty_again(valkey_url: str) -> None:
    test_valkey_is_running_and_empty(valkey_url)


async def test_streams_are_created_once_the_files_of_deleted_ones_are_gone(
    own_nats: NatsServer,
) -> None:
    async with connect_as_tester(own_nats.at) as tester:
        await reset_bus(tester, own_nats.streams)
        leftover = own_nats.streams / ".of-before"
        leftover.mkdir()
        beginning = asyncio.create_task(reset_bus(tester, own_nats.streams))
        await until(lambda: not (own_nats.streams / EVENTS).exists(), "the stream is deleted")
        assert not beginning.done()
        leftover.rmdir()
        await beginning
        await tester.client.jetstream().stream_info(EVENTS)
