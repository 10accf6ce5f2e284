"""Publishing counted items once a period, also after a failure."""

import asyncio
import logging

import pytest

from harness.waits import until
from toolbus_common.contracts import AccessRejected, Event
from toolbus_common.messaging.periodic_publisher import PeriodicPublisher


class Counter:
    """A source of the items noted since the last take."""

    def __init__(self) -> None:
        self.items: list[int] = []
        self.fails_to_take = False

    def take(self) -> list[int]:
        """Return the items of the period; raise once if that is wanted."""
        if self.fails_to_take:
            self.fails_to_take = False
            raise RuntimeError("not taken")
        items, self.items = self.items, []
        return items


def event_of(number: int) -> Event:
    """Build an event; a negative number has none."""
    if number < 0:
        raise ValueError("no event")
    return AccessRejected(
        id=f"{number}.rejected", at=1.0, customer="c", entrance="mcp", code="x", address="",
        count=number, since=0.0, reason="",
    )  # fmt: skip


def failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.message for each in caplog.records if each.levelno == logging.ERROR]


def test_flush_publishes_the_period_once() -> None:
    counter, published = Counter(), list[Event]()
    publisher = PeriodicPublisher(published.append, counter.take, event_of, 60.0)
    counter.items = [1, 2]
    publisher.flush()
    publisher.flush()
    assert [each.id for each in published] == ["1.rejected", "2.rejected"]


async def test_an_item_that_fails_is_logged_and_the_others_are_published(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counter, published = Counter(), list[Event]()
    publisher = PeriodicPublisher(published.append, counter.take, event_of, 0.01)
    counter.items = [1, -1, 2]
    async with publisher.running():
        await until(lambda: len(published) == 2, "the period of the failure")
        counter.items = [3]
        await until(lambda: len(published) == 3, "the period after it")
    assert failures(caplog) == ["periodic_events.not_published"]
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_a_source_that_fails_is_logged_and_its_items_are_published_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counter, published = Counter(), list[Event]()
    publisher = PeriodicPublisher(published.append, counter.take, event_of, 0.01)
    counter.items, counter.fails_to_take = [1], True
    async with publisher.running():
        await until(lambda: published, "the next period")
    assert failures(caplog) == ["periodic_events.not_taken"]


def test_a_publisher_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    counter = Counter()

    def reject(_event: Event) -> None:
        raise OSError("no room")

    counter.items = [1]
    PeriodicPublisher(reject, counter.take, event_of, 60.0).flush()
    assert failures(caplog) == ["periodic_events.not_published"]
