"""Publication of one server's catalogue entry. It is updated when its lists or pins change."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import TypeVar

from toolbus_common.contracts import Listing
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_executor.catalog.definition_guards import DefinitionGuards
from toolbus_executor.catalog.definition_pins import (
    TRUST,
    Pins,
    flagged_event,
    newly_flagged,
    newly_quarantined,
    quarantined_event,
    uncallable,
)
from toolbus_executor.catalog.definition_signals import DefinitionSignals

log = logging.getLogger(__name__)

MAX_EVENTS = 1000  # quarantine events at once; after these, one per second
T = TypeVar("T")
Uncallable = frozenset[tuple[str, str]]


class CatalogPublisher:
    """The catalogue entry of one server.

    `on_uncallable` receives each method and name whose calls must be rejected. `guards` are those
    of the phase `definitions`.
    """

    def __init__(
        self, name: str, mode: str, catalogue: Bucket, pins: Pins, events: EventPublisher
    ) -> None:
        self.name = name
        self.listed: Listing | None = None  # the last listing of this executor, after the pins
        self.on_uncallable: Callable[[Uncallable], None] = lambda _names: None
        # True if the listing is a placeholder of Toolbus, because the server was not connected yet.
        self.ours = False
        self.guards: DefinitionGuards | None = None
        self._declared_mode = mode
        self._catalogue = catalogue
        self._pins = pins
        self._events = events
        self._signals = DefinitionSignals()
        self._publishing = asyncio.Lock()
        self._events_left = float(MAX_EVENTS)  # events that may be published now
        self._counted_at = monotonic()
        self._pins_changed = False
        self._updating: asyncio.Task[None] | None = None

    @property
    def _mode(self) -> str:
        return TRUST if self.ours else self._declared_mode

    async def now(self) -> Listing | None:
        """Return the published entry; None if there is none.

        Another replica may have written it.
        """
        current = await self._catalogue.get(self.name)
        return Listing.decode(current.value) if current and current.value else None

    async def take(self, listing: Listing, pins: Bucket) -> Listing:
        """Pin a new listing and return it with the pins applied.

        From now on, this executor rejects calls of quarantined entries.
        """
        listing = await self._signals.added(listing)
        if self.guards is not None:
            listing = await self.guards.checked(listing)
        before = await self.now()
        known_before = before is not None and before.known
        await self._pins.pin_first_listing(pins, listing, self._mode, known=known_before)
        known = known_before or self._mode != TRUST
        return self.adopt(listing.model_copy(update={"known": known}))

    async def publish(self, listing: Listing) -> None:
        """Write the entry if it differs from the published one.

        Replicas with the same listing therefore write it only once.
        """
        async with self._publishing:
            # The pins may have changed since the listing.
            listing = self._pins.apply_pins(listing, self._mode)
            before = await self.now()
            if before != listing:
                await self._catalogue.put(self.name, listing.encode())
                self._publish_quarantined(before, listing)
                self._publish_flagged(before, listing)

    def reapply_pins(self) -> None:
        """Start a task that applies changed pins to the entry, unless one is already running."""
        self._pins_changed = True
        if self._updating is None or self._updating.done():
            self._updating = asyncio.get_running_loop().create_task(self._update_all())

    async def close(self, *, removed: bool) -> None:
        """Stop updating. If `removed` is set, delete the entry from the catalogue."""
        if self._updating is not None:
            self._updating.cancel()
            await asyncio.gather(self._updating, return_exceptions=True)
        if removed:
            with suppress(Exception):  # if the bus is down, the next executor removes the entry
                await self._catalogue.delete(self.name)

    def adopt(self, listing: Listing) -> Listing:
        """Return the listing with the pins applied.

        From now on, calls of quarantined entries are rejected.
        """
        self.listed = self._pins.apply_pins(listing, self._mode)
        self.on_uncallable(uncallable(self.listed))
        return self.listed

    async def _update_all(self) -> None:
        """Apply the pins to the local listing and to the published entry.

        Repeat this until the pins stop changing.
        """
        while self._pins_changed:
            self._pins_changed = False
            if self.listed is not None:
                self.adopt(self.listed)
            try:
                async with self._publishing:
                    while not await self._update_entry():
                        pass
            except Exception:  # if the bus is down, the next connection publishes the entry
                log.exception("pins.not_applied", extra={"server": self.name})

    async def _update_entry(self) -> bool:
        """Apply the pins to the published entry.

        Return False if another replica changed the entry at the same time.
        """
        entry = await self._catalogue.get(self.name)
        if entry is None or entry.value is None:
            return True
        before = Listing.decode(entry.value)
        listing = self._pins.apply_pins(before, self._mode)
        if listing == before:
            return True
        if await self._catalogue.swap(self.name, listing.encode(), entry.revision) is None:
            return False
        self._publish_quarantined(before, listing)
        self._publish_flagged(before, listing)
        return True

    def _publish_flagged(self, before: Listing | None, now: Listing) -> None:
        """Log and publish definitions with new signals."""
        for kind, entry in self._within_rate(newly_flagged(before, now)):
            event = flagged_event(self.name, kind, entry)
            about = {"server": self.name, "what": entry.name, "kind": kind, "rules": event.rules}
            log.warning("definition.suspicious", extra=about)
            self._events.publish(event)

    def _publish_quarantined(self, before: Listing | None, now: Listing) -> None:
        """Publish events about newly quarantined entries.

        Their rate is limited to protect the stream.
        """
        for quarantined in self._within_rate(newly_quarantined(before, now)):
            about = {"server": self.name, "what": quarantined.name, "why": quarantined.why}
            log.warning("definition.quarantined", extra=about)
            self._events.publish(quarantined_event(self.name, quarantined))

    def _within_rate(self, found: list[T]) -> list[T]:
        """Return the first items of `found`: as many as there may be events now."""
        at = monotonic()
        self._events_left = min(MAX_EVENTS, self._events_left + at - self._counted_at)
        self._counted_at = at
        published = found[: int(self._events_left)]
        self._events_left -= len(published)
        if len(published) < len(found):
            suppressed = {"server": self.name, "suppressed": len(found) - len(published)}
            log.warning("definition.quarantine_events_suppressed", extra=suppressed)
        return published
