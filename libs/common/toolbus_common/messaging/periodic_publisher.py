"""Publisher of counted items as events, once per period."""

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
    """Publisher of one event per counted item, at the end of each period.

    `take` returns the items of the current period and starts the next period. `event_of` returns
    the event for one item. If the event of an item cannot be created or published, the item is
    logged and dropped. Other items and further periods are not affected.
    """

    publish: Callable[[Event], None]
    take: Callable[[], Iterable[T]]
    event_of: Callable[[T], Event]
    seconds: float
    _pending: deque[T] = field(default_factory=deque, init=False)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Publish at the end of each period until the context ends."""
        async with in_background(self._run()):
            yield

    def flush(self) -> None:
        """Publish the pending events and those of the current period, and start the next period."""
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
