"""Which watchers follow the calls, without a bus: when others leave, and after a failed attempt."""

import asyncio
from typing import Any, cast

import pytest

from toolbus_common.contracts import CallAllowed, CallCompleted, CallDenied, CallFailed
from toolbus_common.contracts.events.base import subject_of
from toolbus_common.nats.connection import Handler, Subscription
from toolbus_ingress.live.feed import MAX_WAITING, MAX_WATCHERS, LiveFeed

EVENTS = (CallAllowed, CallDenied, CallCompleted, CallFailed)
SUBJECTS = {subject_of(event.NAME, "*") for event in EVENTS}
DONE = subject_of(CallCompleted.NAME, "acme")
CALL = b'{"at": 1.0, "call_id": "c", "server": "s", "tool": "t"}'


class Subjects:
    """A bus that knows who subscribed. The subscription after the next `working` ones fails."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}
        self.working = len(EVENTS) * 1000

    async def subscribe(self, subject: str, handler: Handler) -> Subscription:
        """Subscribe. Raises `ConnectionError`."""
        await asyncio.sleep(0)
        if self.working == 0:
            raise ConnectionError
        self.working -= 1
        assert subject not in self.handlers
        self.handlers[subject] = handler

        async def stop() -> None:
            await asyncio.sleep(0)
            del self.handlers[subject]

        return Subscription(stop)

    def publish(self, calls: int) -> None:
        """Send one message with so many calls."""
        for subject, handler in [*self.handlers.items()]:
            if subject == subject_of(CallCompleted.NAME, "*"):
                handler(b"\n".join([CALL] * calls), DONE, "")


def feed_of(bus: Subjects) -> LiveFeed:
    return LiveFeed(cast("Any", bus))


async def test_a_full_watcher_follows_again_after_the_last_other_one_left() -> None:
    bus = Subjects()
    feed = feed_of(bus)
    full, other = await feed.join(lambda _: True), await feed.join(lambda _: False)
    bus.publish(MAX_WAITING)
    await feed.leave(other)
    assert not bus.handlers
    assert (await feed.take(full)).sampled
    assert bus.handlers.keys() == SUBJECTS
    bus.publish(1)
    part = await feed.take(full)
    assert (len(part.events), part.sampled) == (1, False)


async def test_a_watcher_that_takes_events_during_the_unsubscription_follows_again() -> None:
    bus = Subjects()
    feed = feed_of(bus)
    full, other = await feed.join(lambda _: True), await feed.join(lambda _: False)
    bus.publish(MAX_WAITING)
    await asyncio.gather(feed.leave(other), feed.take(full))
    assert bus.handlers.keys() == SUBJECTS


@pytest.mark.parametrize("working", range(len(EVENTS)))
async def test_a_failed_attempt_leaves_no_watcher_and_the_next_one_completes_it(
    working: int,
) -> None:
    bus = Subjects()
    feed = feed_of(bus)
    for _ in range(MAX_WATCHERS + 1):
        bus.working = max(0, working - len(bus.handlers))
        with pytest.raises(ConnectionError):
            await feed.join(lambda _: True)
    bus.working = len(EVENTS)
    watcher = await feed.join(lambda _: True)
    assert bus.handlers.keys() == SUBJECTS
    await feed.leave(watcher)
    assert not bus.handlers
