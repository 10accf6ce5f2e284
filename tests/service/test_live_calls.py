"""The live view on a real bus: what watchers receive, and when calls come faster than they take."""

import json

from harness.audit.events import bus_of
from harness.waits import PATIENCE, until
from toolbus_common.contracts import CallCompleted
from toolbus_common.contracts.events.base import subject_of
from toolbus_common.nats.connection import Bus
from toolbus_common.settings import Settings
from toolbus_ingress.live.feed import MAX_WAITING, LiveFeed, LivePart, Watcher

DONE = subject_of(CallCompleted.NAME, "acme")


def lines(first: int, number: int) -> bytes:
    """Return a message with events of so many calls."""
    calls = range(first, first + number)
    rows = [{"at": 1.0, "call_id": f"c{at}", "server": "s", "tool": "t"} for at in calls]
    return b"\n".join(json.dumps(row).encode() for row in rows)


async def part_of(feed: LiveFeed, watcher: Watcher) -> LivePart:
    """Wait for events, and return them."""
    await watcher.wait(PATIENCE)
    return await feed.take(watcher)


async def received(feed: LiveFeed, watcher: Watcher, bus: Bus, first: int) -> LivePart:
    """Publish calls one by one until a watcher receives one: it may be unsubscribed still."""
    at = first
    while True:
        await bus.publish(DONE, lines(at, 1))
        await watcher.wait(0.05)
        part = await feed.take(watcher)
        if part.events:
            return part
        at += 1


async def test_a_watcher_sees_events_with_their_names_and_customers(settings: Settings) -> None:
    async with bus_of("ingress", settings) as bus, bus_of("executor", settings) as executor:
        feed = LiveFeed(bus)
        watcher = await feed.join(lambda _: True)
        await bus.settled()
        await executor.publish(DONE, lines(0, 3) + b"\nno JSON")
        part = await part_of(feed, watcher)
        assert [(each.event, each.customer, each.call_id) for each in part.events] == [
            ("call.completed", "acme", f"c{at}") for at in range(3)
        ]
        assert (part.skipped, part.sampled) == (0, False)
        await feed.leave(watcher)


async def test_a_full_watcher_costs_nothing_until_it_takes_its_events_and_says_so(
    settings: Settings,
) -> None:
    async with bus_of("ingress", settings) as bus, bus_of("executor", settings) as executor:
        feed = LiveFeed(bus)
        watcher = await feed.join(lambda _: True)
        await bus.settled()
        await executor.publish(DONE, lines(0, MAX_WAITING + 50))
        await until(lambda: watcher.sampled, "the watcher is full")
        await until(lambda: not feed.following, "ingress unsubscribes")
        part = await feed.take(watcher)
        assert (len(part.events), part.skipped, part.sampled) == (MAX_WAITING, 50, True)
        assert feed.following
        later = await received(feed, watcher, executor, 1000)
        assert (later.skipped, later.sampled) == (0, False)
        await feed.leave(watcher)
        assert not feed.following


async def test_a_watcher_of_rare_calls_misses_none_while_another_one_is_full(
    settings: Settings,
) -> None:
    async with bus_of("ingress", settings) as bus, bus_of("executor", settings) as executor:
        feed = LiveFeed(bus)
        all_calls = await feed.join(lambda _: True)
        rare = await feed.join(lambda event: event.call_id == "c777")
        await bus.settled()
        await executor.publish(DONE, lines(0, MAX_WAITING + 1))
        await until(lambda: all_calls.skipped, "one watcher is full")
        await executor.publish(DONE, lines(777, 1))
        part = await part_of(feed, rare)
        assert ([each.call_id for each in part.events], part.sampled) == (["c777"], False)
        assert (await feed.take(all_calls)).skipped == 2
        await feed.leave(all_calls)
        await feed.leave(rare)
