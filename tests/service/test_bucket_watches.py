"""Watching a bucket without a consumer: no change is missed, even if not republished."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from harness.audit.events import bus_of
from harness.engines.bus_reset import connect_as_tester, provisioned
from harness.engines.nats_server import NatsAt, NatsServer
from harness.waits import until
from toolbus_common.calls.bucket_sizes import Size, follow_sizes
from toolbus_common.concurrency import end
from toolbus_common.nats import stream_follower as following
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.kv_bucket import Change
from toolbus_common.nats.provision import provision
from toolbus_common.nats.topology import CONFIG, OUTCOMES
from toolbus_common.settings import Settings

STREAM = f"KV_{CONFIG}"


@dataclass
class ReceivedChanges:
    """The changes a watcher received, and how often the first state was complete."""

    changes: list[Change] = field(default_factory=list)
    complete: int = 0

    @property
    def keys(self) -> list[str]:
        return [each.key for each in self.changes]

    @property
    def now(self) -> dict[str, bytes | None]:
        return {each.key: each.value for each in self.changes}


@asynccontextmanager
async def watching(bus: Bus) -> AsyncIterator[ReceivedChanges]:
    """Yield a watcher of the configuration, once it has received the present entries."""
    received, bucket = ReceivedChanges(), await bus.bucket(CONFIG)

    async def watch() -> None:
        async for change in bucket.watch():
            if change is None:
                received.complete += 1
            else:
                received.changes.append(change)

    task = asyncio.create_task(watch())
    try:
        await until(lambda: received.complete, "the first picture")
        yield received
    finally:
        await end(task)


async def repeat(operator: Bus, *, repeats: bool) -> None:
    """Let the server republish stored changes, or not."""
    stream = operator.client.jetstream()
    config = (await stream.stream_info(STREAM)).config
    if repeats:
        await provision(operator)
    else:
        await stream.update_stream(config.evolve(republish=None))


async def test_a_watcher_gets_the_newest_of_each_entry_first_and_completes_an_empty_bucket(
    settings: Settings, operator: Bus
) -> None:
    async with bus_of("ingress", settings) as bus:
        async with watching(bus) as received:
            assert received.changes == []
        bucket = await operator.bucket(CONFIG)
        for value in (b"1", b"2", b"3"):
            await bucket.put("twice", value)
            await bucket.put("gone", value)
        await bucket.delete("gone")
        async with watching(bus) as received:
            assert received.keys == ["twice", "gone"]
            assert received.now == {"twice": b"3", "gone": None}


async def test_a_change_that_was_not_republished_arrives_with_the_next_in_order(
    settings: Settings, operator: Bus
) -> None:
    bucket = await operator.bucket(CONFIG)
    async with bus_of("ingress", settings) as bus, watching(bus) as received:
        await bucket.put("told", b"1")
        await until(lambda: received.keys == ["told"], "the republished change")
        await repeat(operator, repeats=False)
        await bucket.put("lost", b"1")
        await bucket.delete("told")
        await repeat(operator, repeats=True)
        await bucket.put("next", b"1")
        await until(lambda: "next" in received.keys, "the next republished change")
        assert received.keys == ["told", "lost", "told", "next"]
        assert received.now == {"told": None, "lost": b"1", "next": b"1"}
        assert received.complete == 1


async def test_a_last_change_that_was_not_republished_still_arrives(
    settings: Settings, operator: Bus
) -> None:
    bucket = await operator.bucket(CONFIG)
    async with bus_of("ingress", settings) as bus, watching(bus) as received:
        await repeat(operator, repeats=False)
        await bucket.put("lost", b"1")
        await until(lambda: received.keys == ["lost"], "the read of the stream")


async def test_changes_faster_than_their_consumer_all_arrive(
    settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "MAX_WAITING", 3)
    bucket = await operator.bucket(CONFIG)
    async with bus_of("ingress", settings) as bus, watching(bus) as received:
        await asyncio.gather(*(bucket.put(f"k{n}", b"%d" % n) for n in range(300)))
        await until(lambda: len(received.now) == 300, "every entry")
        assert sorted(each.revision for each in received.changes) == list(range(1, 301))


async def test_a_recreated_bucket_is_read_again(
    settings: Settings, operator: Bus, nats_server: NatsAt
) -> None:
    bucket = await operator.bucket(CONFIG)
    for n in range(3):
        await bucket.put(f"before{n}", b"1")
    async with bus_of("ingress", settings) as bus, watching(bus) as received:
        assert received.complete == 1
        async with connect_as_tester(nats_server) as tester:
            await tester.client.jetstream().delete_stream(STREAM)
            await provision(tester)
        await bucket.put("after", b"1")
        await until(lambda: received.complete == 2, "the state of the new bucket")
        assert received.keys[-1] == "after"


async def test_a_change_during_a_disconnect_arrives(own_nats: NatsServer) -> None:
    await provisioned(own_nats)
    async with connect_as_tester(own_nats.at) as bus, watching(bus) as received:
        await (await bus.bucket(CONFIG)).put("before", b"1")
        await until(lambda: received.keys == ["before"], "a change")
        own_nats.kill()
        await until(lambda: not bus.connected, "the bus is lost")
        own_nats.start()
        async with connect_as_tester(own_nats.at) as other:
            await (await other.bucket(CONFIG)).put("meanwhile", b"1")
        await until(
            lambda: received.keys == ["before", "meanwhile"], "the change during the disconnect"
        )


async def test_sizes_are_reported_of_present_and_of_later_objects(settings: Settings) -> None:
    async with bus_of("policy", settings) as bus:
        bucket = await bus.bucket(OUTCOMES)
        await bucket.put("first", b"12345")
        sizes = list[Size]()
        task = asyncio.create_task(follow_sizes(bus, OUTCOMES, sizes.append))
        try:
            await until(lambda: sizes, "the present object")
            await bucket.put("second", b"1" * 70_000)
            await until(lambda: len(sizes) == 2, "the later object")
            assert [(each.key, each.bytes) for each in sizes] == [("first", 5), ("second", 70_000)]
            assert all(each.at > 0 for each in sizes)
        finally:
            await end(task)
