"""Which definitions are as approved: the pins as this executor knows them, and what they decide."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import time
from typing import Any

from pydantic import ValidationError

from toolbus_common.contracts import (
    CatalogEntry,
    DefinitionChanged,
    DefinitionEvent,
    DefinitionPinned,
    FirstListing,
    Listing,
    Pin,
    Quarantined,
)
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.contracts.records.pin_names import (
    FIRST,
    METHODS,
    PINNED,
    first_key,
    pin_key,
    server_of,
)
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.nats.kv_bucket import Bucket, Change

log = logging.getLogger(__name__)

BY_FIRST = "first listing"
TRUST = "trust"
FIRST_ONLY = "first"
WRITTEN_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Pinned:
    """What a pin says, without the definition."""

    digest: str = ""
    rejected: str = ""


NO_PIN = Pinned()


@dataclass(slots=True)
class Pins:
    """Every pin, watched. `on_change` hears which server a change is about."""

    events: EventPublisher
    on_change: Callable[[str], None] = lambda _server: None
    _pins: dict[str, Pinned] = field(default_factory=dict)
    _first: dict[str, FirstListing] = field(default_factory=dict)

    def hear(self, change: Change | None) -> None:
        """Take one change of the bucket."""
        if change is None:
            return
        before = self._known(change.key)
        try:
            self._note(change.key, change.value)
        except ValidationError:
            # Fail closed: what cannot be read approves nothing.
            log.error("pin.unreadable", extra={"entry": change.key})  # noqa: TRY400
            self._note(change.key, None)
        if self._known(change.key) != before:  # what this executor wrote is known already
            self.on_change(server_of(change.key))

    def weighed(self, listing: Listing, mode: str) -> Listing:
        """The listing with everything on the side where it belongs now."""
        return weighed(listing, mode, self._pins)

    async def begin(self, bucket: Bucket, listing: Listing, mode: str, *, known: bool) -> None:
        """Meet a server: pin what its first listing holds, where that is trusted.

        `known` says that the catalogue remembers a meeting. If the pins do not, they were lost,
        and nothing is trusted anew.
        """
        if mode == TRUST:
            return
        server = listing.server
        if server not in self._first:
            digests = _digests(listing) if mode == FIRST_ONLY and not known else {}
            if known:
                log.warning("pins.lost", extra={"server": server})
            await self._remember(bucket, server, FirstListing(digests=digests, at=time()))
        first = self._first[server].digests
        missing = _missing(listing, first, self._pins)
        for start in range(0, len(missing), WRITTEN_AT_ONCE):
            some = missing[start : start + WRITTEN_AT_ONCE]
            await asyncio.gather(*(self._pin(bucket, server, *each) for each in some))

    async def _remember(self, bucket: Bucket, server: str, first: FirstListing) -> None:
        """Write the first listing, unless another executor was faster: then that one counts."""
        key = first_key(server)
        if await bucket.swap(key, first.encode(), 0) is None:
            entry = await bucket.get(key)
            first = FirstListing.decode(entry.value) if entry and entry.value else FirstListing()
        self._first[server] = first

    async def _pin(self, bucket: Bucket, server: str, kind: str, offered: CatalogEntry) -> None:
        """Pin one definition, unless somebody decided about it already."""
        key = pin_key(kind, server, offered.name)
        pin = Pin(digest=offered.digest, definition=offered.as_sent, by=BY_FIRST, at=time())
        if await bucket.swap(key, pin.encode(), 0) is None:
            entry = await bucket.get(key)
            self._note(key, entry.value if entry else None)
            return
        self._pins[key] = Pinned(pin.digest)
        told = event_about(server, kind, offered, "pinned")
        self.events.publish(DefinitionPinned(**told, by=BY_FIRST))

    def _known(self, key: str) -> Pinned | FirstListing | None:
        if key.startswith(f"{FIRST}."):
            return self._first.get(server_of(key))
        return self._pins.get(key)

    def _note(self, key: str, value: bytes | None) -> None:
        known: dict[str, Any] = self._pins
        if key.startswith(f"{FIRST}."):
            key, known = server_of(key), self._first
        if value is None:
            known.pop(key, None)
        elif known is self._first:
            known[key] = FirstListing.decode(value)
        else:
            pin = Pin.decode(value)
            known[key] = Pinned(pin.digest, pin.rejected)


def weighed(listing: Listing, mode: str, pins: Mapping[str, Pinned]) -> Listing:
    """What is shown and what is held back, of everything the server offers. Pure.

    An entry of before there were pins is left as it is: its server is met when it connects.
    """
    if mode != TRUST and not listing.known:
        return listing
    held: list[Quarantined] = []
    shown: dict[str, tuple[CatalogEntry, ...]] = {}
    for kind in PINNED:
        kept = []
        for offered in _whole(listing, kind):
            pin = pins.get(pin_key(kind, listing.server, offered.name), NO_PIN)
            why = why_held(offered.digest, mode, pin)
            if why:
                held.append(_held(kind, offered, pin.digest, why))
            else:
                kept.append(offered)
        shown[kind] = tuple(kept)
    return listing.model_copy(update={**shown, "quarantined": tuple(held)})


def why_held(digest: str, mode: str, pin: Pinned) -> str:
    """Why nobody may see or use this definition; empty when everybody may. Pure."""
    if digest and digest == pin.rejected:
        return "rejected"
    if mode == TRUST:
        return ""
    if not digest:
        return "its definition could not be compared"
    if digest == pin.digest:
        return ""
    return "changed since it was approved" if pin.digest else "not approved yet"


def newly_held(before: Listing | None, now: Listing) -> list[Quarantined]:
    """What is held back now and was not, as it is."""
    known = {(each.kind, each.name, each.digest) for each in (before.quarantined if before else ())}
    return [each for each in now.quarantined if (each.kind, each.name, each.digest) not in known]


def refused(listing: Listing) -> frozenset[tuple[str, str]]:
    """The methods and names no call may use: what is held back, and what could not be listed."""
    held = {(each.kind, each.name) for each in listing.quarantined}
    for kind in PINNED:
        shown = {each.name for each in getattr(listing, kind)}
        held |= {(kind, name) for name in listing.dropped if name not in shown}
    return frozenset((method, name) for kind, name in held for method in METHODS[kind])


def changed(server: str, held: Quarantined) -> DefinitionEvent:
    """The event that something is held back."""
    told = event_about(server, held.kind, held, "changed")
    return DefinitionChanged(**told, approved_digest=held.approved, reason=held.why)


def event_about(server: str, kind: str, offered: CatalogEntry, what: str) -> dict[str, Any]:
    """The fields of every event about a definition."""
    at = time()
    return {
        "id": f"{pin_key(kind, server, offered.name)}.{what}.{at:.6f}",
        "at": at,
        "customer": DEFAULT_CUSTOMER,
        "server": server,
        "kind": kind,
        "tool": offered.name,
        "definition_digest": offered.digest,
    }


def _digests(listing: Listing) -> dict[str, str]:
    return {
        pin_key(kind, listing.server, offered.name): offered.digest
        for kind in PINNED
        for offered in getattr(listing, kind)
        if offered.digest
    }


def _missing(
    listing: Listing, first: Mapping[str, str], pins: Mapping[str, Pinned]
) -> list[tuple[str, CatalogEntry]]:
    """What has no pin and still is as the first listing held it: all, or what a crash left."""
    return [
        (kind, offered)
        for kind in PINNED
        for offered in getattr(listing, kind)
        if (key := pin_key(kind, listing.server, offered.name)) not in pins
        and first.get(key, "") == offered.digest != ""
    ]


def _whole(listing: Listing, kind: str) -> list[CatalogEntry]:
    """Shown or held, in the order of names."""
    held = [each for each in listing.quarantined if each.kind == kind]
    return sorted((*getattr(listing, kind), *held), key=lambda each: each.name)


def _held(kind: str, offered: CatalogEntry, approved: str, why: str) -> Quarantined:
    return Quarantined(
        name=offered.name,
        definition=offered.definition,
        digest=offered.digest,
        sent=offered.sent,
        repaired=offered.repaired,
        kind=kind,
        approved=approved,
        why=why,
    )
