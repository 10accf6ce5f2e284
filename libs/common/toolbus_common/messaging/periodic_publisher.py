"""Publish counted items as events, once per period."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from toolbus_common.concurrency import in_background
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
    _pending: deque[T] = field(default_factory=deque, init=False)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Publish at the end of each period until the context is left."""
        async with in_background(self._run()):
            yield

    def flush(self) -> None:
        """Publish pending events and the current period immediately, and start the next period."""
        self._take()
        while self._pending:
            self._publish(self._pending.popleft())

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self.seconds)
            self._take()
            while self._pending:
                self._publish(self._pending.popleft())
                await asyncio.sleep(0)  # calls proceed between two events

    def _take(self) -> None:
        try:
            self._pending.extend(self.take())
        except Exception:
            log.exception("periodic_events.not_taken")

    def _publish(self, item: T) -> None:
        try:
            self.publish(self.event_of(item))
        except Exception:
            log.exception("periodic_events.not_published")
