"""One server's entry in the catalogue: weighed against the pins whenever either changes."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from toolbus_common.contracts import Listing
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_executor.catalog.definition_pins import TRUST, Pins, changed, newly_held, refused

log = logging.getLogger(__name__)

MOST_TOLD = 1000  # events of what is held back at once; afterwards one a second
Refused = frozenset[tuple[str, str]]


class Entry:
    """What is published of one server. `on_refused` hears what no call may use."""

    def __init__(
        self, name: str, mode: str, catalogue: Bucket, pins: Pins, events: EventPublisher
    ) -> None:
        self.name = name
        self.listed: Listing | None = None  # as this executor saw it last, weighed
        self.on_refused: Callable[[Refused], None] = lambda _names: None
        self.ours = False  # what it lists now is Toolbus' own word, and the server is yet to be met
        self._declared_mode = mode
        self._catalogue = catalogue
        self._pins = pins
        self._events = events
        self._publishing = asyncio.Lock()
        self._untold = float(MOST_TOLD)  # events that may be said now
        self._told_at = monotonic()
        self._unweighed = False
        self._weighing: asyncio.Task[None] | None = None

    @property
    def _mode(self) -> str:
        return TRUST if self.ours else self._declared_mode

    async def now(self) -> Listing | None:
        """The entry as it stands, ours or another replica's."""
        current = await self._catalogue.get(self.name)
        return Listing.decode(current.value) if current and current.value else None

    async def take(self, listing: Listing, pins: Bucket) -> Listing:
        """Take note of what the server lists: from here on no call uses what is held back."""
        before = await self.now()
        met = before is not None and before.known
        await self._pins.begin(pins, listing, self._mode, known=met)
        known = met or self._mode != TRUST
        return self.adopt(listing.model_copy(update={"known": known}))

    async def publish(self, listing: Listing) -> None:
        """Write the entry if it differs: replicas that see the same write it once."""
        async with self._publishing:
            # Weighed anew: the pins may have changed since it was listed.
            listing = self._pins.weighed(listing, self._mode)
            before = await self.now()
            if before != listing:
                await self._catalogue.put(self.name, listing.encode())
                self._say_held(before, listing)

    def weigh_anew(self) -> None:
        """The pins changed: show and hold back what they say now."""
        self._unweighed = True
        if self._weighing is None or self._weighing.done():
            self._weighing = asyncio.get_running_loop().create_task(self._weigh_all())

    async def close(self, *, removed: bool) -> None:
        """Leave it; `removed` also takes it out of the catalogue."""
        if self._weighing is not None:
            self._weighing.cancel()
            await asyncio.gather(self._weighing, return_exceptions=True)
        if removed:
            with suppress(Exception):  # the bus may be away: the next executor looks again
                await self._catalogue.delete(self.name)

    def adopt(self, listing: Listing) -> Listing:
        """Take a listing as this executor's own: no call uses what of it is held back."""
        self.listed = self._pins.weighed(listing, self._mode)
        self.on_refused(refused(self.listed))
        return self.listed

    async def _weigh_all(self) -> None:
        """What this executor saw, and the entry, whoever wrote it; once more if pins changed."""
        while self._unweighed:
            self._unweighed = False
            if self.listed is not None:
                self.adopt(self.listed)
            try:
                async with self._publishing:
                    while not await self._weigh_entry():
                        pass
            except Exception:  # the bus is away: the next connection publishes
                log.exception("pins.not_weighed", extra={"server": self.name})

    async def _weigh_entry(self) -> bool:
        """Weigh the entry; False if another replica wrote it meanwhile."""
        entry = await self._catalogue.get(self.name)
        if entry is None or entry.value is None:
            return True
        before = Listing.decode(entry.value)
        listing = self._pins.weighed(before, self._mode)
        if listing == before:
            return True
        if await self._catalogue.swap(self.name, listing.encode(), entry.revision) is None:
            return False
        self._say_held(before, listing)
        return True

    def _say_held(self, before: Listing | None, now: Listing) -> None:
        """Say what is newly held back; a server that changes for ever must not fill the stream."""
        news = newly_held(before, now)
        at = monotonic()
        self._untold = min(MOST_TOLD, self._untold + at - self._told_at)
        self._told_at = at
        told = news[: int(self._untold)]
        self._untold -= len(told)
        for held in told:
            about = {"server": self.name, "what": held.name, "why": held.why}
            log.warning("definition.held", extra=about)
            self._events.publish(changed(self.name, held))
        if len(told) < len(news):
            untold = {"server": self.name, "untold": len(news) - len(told)}
            log.warning("definition.held_untold", extra=untold)
