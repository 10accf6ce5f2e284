"""Watching a bucket without a consumer: nothing is missed that the server did not repeat."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from harness.audit.events import bus_of
from harness.engines.bus_reset import connect_as_tester, provisioned
from harness.engines.nats_server import NatsAt, NatsServer
from harness.waits import until
from toolbus_common.concurrency import end
from toolbus_common.nats import stream_follower as following
from toolbus_common.nats.bucket_sizes import Size, follow_sizes
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.kv_bucket import Change
from toolbus_common.nats.topology import CONFIG, OUTCOMES, provision
from toolbus_common.settings import Settings

STREAM = f"KV_{CONFIG}"


@dataclass
class Seen:
    """What a watcher was told, and how often the first picture was complete."""

    changes: list[Change] = field(default_factory=list)
    complete: int = 0

    @property
    def keys(self) -> list[str]:
        return [each.key for each in self.changes]

    @property
    def now(self) -> dict[str, bytes | None]:
        return {each.key: each.value for each in self.changes}


@asynccontextmanager
async def watching(bus: Bus) -> AsyncIterator[Seen]:
    """A watcher of the configuration, once it has seen what is there."""
    seen, bucket = Seen(), await bus.bucket(CONFIG)

    async def watch() -> None:
        async for change in bucket.watch():
            if change is None:
                seen.complete += 1
            else:
                seen.changes.append(change)

    task = asyncio.create_task(watch())
    try:
        await until(lambda: seen.complete, "the first picture")
        yield seen
    finally:
        await end(task)


async def repeat(operator: Bus, *, repeats: bool) -> None:
    """Have the server repeat what it stores, or keep silent about it."""
    stream = operator.client.jetstream()
    config = (await stream.stream_info(STREAM)).config
    if repeats:
        await provision(operator)
    else:
        await stream.update_stream(config.evolve(republish=None))


async def test_of_each_entry_the_newest_is_seen_first_and_an_empty_bucket_is_complete(
    settings: Settings, operator: Bus
) -> None:
    async with bus_of("ingress", settings) as bus:
        async with watching(bus) as seen:
            assert seen.changes == []
        bucket = await operator.bucket(CONFIG)
        for value in (b"1", b"2", b"3"):
            await bucket.put("twice", value)
            await bucket.put("gone", value)
        await bucket.delete("gone")
        async with watching(bus) as seen:
            assert seen.keys == ["twice", "gone"]
            assert seen.now == {"twice": b"3", "gone": None}


async def test_a_change_that_was_not_repeated_is_seen_with_the_next_and_in_its_place(
    settings: Settings, operator: Bus
) -> None:
    bucket = await operator.bucket(CONFIG)
    async with bus_of("ingress", settings) as bus, watching(bus) as seen:
        await bucket.put("told", b"1")
        await until(lambda: seen.keys == ["told"], "what is repeated")
        await repeat(operator, repeats=False)
        await bucket.put("lost", b"1")
        await bucket.delete("told")
        await repeat(operator, repeats=True)
        await bucket.put("next", b"1")
        await until(lambda: "next" in seen.keys, "what is repeated again")
        assert seen.keys == ["told", "lost", "told", "next"]
        assert seen.now == {"told": None, "lost": b"1", "next": b"1"}
        assert seen.complete == 1


async def test_a_change_that_nothing_follows_is_seen_though_it_was_never_repeated(
    settings: Settings, operator: Bus
) -> None:
    bucket = await operator.bucket(CONFIG)
    async with bus_of("ingress", settings) as bus, watching(bus) as seen:
        await repeat(operator, repeats=False)
        await bucket.put("lost", b"1")
        await until(lambda: seen.keys == ["lost"], "the look at the stream")


async def test_changes_faster_than_they_are_taken_are_all_seen(
    settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "MOST_WAITING", 3)
    bucket = await operator.bucket(CONFIG)
    async with bus_of("ingress", settings) as bus, watching(bus) as seen:
        await asyncio.gather(*(bucket.put(f"k{n}", b"%d" % n) for n in range(300)))
        await until(lambda: len(seen.now) == 300, "every entry")
        assert sorted(each.revision for each in seen.changes) == list(range(1, 301))


async def test_a_bucket_made_anew_is_seen_anew(
    settings: Settings, operator: Bus, nats_server: NatsAt
) -> None:
    bucket = await operator.bucket(CONFIG)
    for n in range(3):
        await bucket.put(f"before{n}", b"1")
    async with bus_of("ingress", settings) as bus, watching(bus) as seen:
        assert seen.complete == 1
        async with connect_as_tester(nats_server) as tester:
            await tester.client.jetstream().delete_stream(STREAM)
            await provision(tester)
        await bucket.put("after", b"1")
        await until(lambda: seen.complete == 2, "the picture of the new bucket")
        assert seen.keys[-1] == "after"


async def test_what_was_written_while_the_connection_was_away_is_seen(
    own_nats: NatsServer,
) -> None:
    await provisioned(own_nats)
    async with connect_as_tester(own_nats.at) as bus, watching(bus) as seen:
        await (await bus.bucket(CONFIG)).put("before", b"1")
        await until(lambda: seen.keys == ["before"], "a change")
        own_nats.kill()
        await until(lambda: not bus.connected, "the bus is lost")
        own_nats.start()
        async with connect_as_tester(own_nats.at) as other:
            await (await other.bucket(CONFIG)).put("meanwhile", b"1")
        await until(lambda: seen.keys == ["before", "meanwhile"], "what was written meanwhile")


async def test_sizes_are_those_of_what_is_there_and_of_what_is_written_later(
    settings: Settings,
) -> None:
    async with bus_of("policy", settings) as bus:
        bucket = await bus.bucket(OUTCOMES)
        await bucket.put("first", b"12345")
        sizes = list[Size]()
        task = asyncio.create_task(follow_sizes(bus, OUTCOMES, sizes.append))
        try:
            await until(lambda: sizes, "what is there")
            await bucket.put("second", b"1" * 70_000)
            await until(lambda: len(sizes) == 2, "what is written")
            assert [(each.key, each.bytes) for each in sizes] == [("first", 5), ("second", 70_000)]
            assert all(each.at > 0 for each in sizes)
        finally:
            await end(task)
