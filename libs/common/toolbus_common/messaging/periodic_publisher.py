"""Publish what was counted in a period as events, once a period."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from toolbus_common.concurrency import end
from toolbus_common.contracts import Event

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PeriodicPublisher(Generic[T]):
    """Publishes one event per counted item at the end of each period.

    `take` returns the items of the period that ends and starts the next one; `event_of` builds the
    event of one item. An item whose event cannot be built or published is logged and dropped: the
    other items and the following periods are published.
    """

    publish: Callable[[Event], None]
    take: Callable[[], Iterable[T]]
    event_of: Callable[[T], Event]
    seconds: float

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Publish at the end of each period until the context is left."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            await end(task)

    def flush(self) -> None:
        """Publish the current period at once and start the next one."""
        for item in self._items():
            self._publish(item)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self.seconds)
            for item in self._items():
                self._publish(item)
                await asyncio.sleep(0)  # calls proceed between two events

    def _items(self) -> Iterable[T]:
        try:
            return self.take()
        except Exception:
            log.exception("periodic_events.not_taken")
            return ()

    def _publish(self, item: T) -> None:
        try:
            self.publish(self.event_of(item))
        except Exception:
            log.exception("periodic_events.not_published")
