"""Definition pins: the approved definitions of a server's lists, and its instructions."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from time import time
from typing import Any

from pydantic import ValidationError

from toolbus_common.contracts import (
    CatalogEntry,
    DefinitionChanged,
    DefinitionEvent,
    DefinitionFlagged,
    DefinitionPinned,
    FirstListing,
    Listing,
    Pin,
    Quarantined,
)
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.contracts.records.pin_names import (
    FIRST,
    INSTRUCTIONS,
    KINDS,
    METHODS,
    NAMED,
    RESOURCES,
    first_key,
    pin_key,
    server_of,
)
from toolbus_common.guards.server_instructions import with_instructions
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.nats.kv_bucket import Bucket, Change
from toolbus_executor.catalog.definition_signals import BLOCKING, named, severity
from toolbus_executor.catalog.first_listing import completed, entries_of, first_listing
from toolbus_executor.catalog.other_servers import OtherServers

log = logging.getLogger(__name__)

BY_FIRST = "first listing"
NOT_APPROVED = "not approved yet"
TRUST = "trust"
FIRST_ONLY = "first"
WRITTEN_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class PinState:
    """The digests in a pin: of the approved definition, and of a rejected definition.

    `by_operator` is set if an operator approved the definition.
    """

    digest: str = ""
    rejected: str = ""
    by_operator: bool = False


NO_PIN = PinState()


@dataclass(slots=True)
class Pins:
    """All pins of definitions, as a watched bucket contains them.

    `on_change` is called with the name of the server whose pins changed.
    """

    events: EventPublisher
    on_change: Callable[[str], None] = lambda _server: None
    others: OtherServers = field(default_factory=OtherServers)
    _pins: dict[str, PinState] = field(default_factory=dict)
    _first: dict[str, FirstListing] = field(default_factory=dict)

    def apply_change(self, change: Change | None) -> None:
        """Apply one change of the bucket."""
        if change is None:
            return
        before = self._known(change.key)
        try:
            self._note(change.key, change.value)
        except ValidationError:
            # Fail closed: an unreadable pin approves nothing.
            log.error("pin.unreadable", extra={"entry": change.key})  # noqa: TRY400
            self._note(change.key, None)
        if self._known(change.key) != before:  # this executor's writes are known already
            self.on_change(server_of(change.key))

    def apply_pins(self, listing: Listing, mode: str) -> Listing:
        """Return the listing, with each entry either shown or quarantined according to its pin."""
        first = self._first.get(listing.server)
        kinds = KINDS if first is None else first.kinds
        later = first is not None and first.later_resources
        listing = self.others.with_signals(listing)
        return apply_pins(listing, mode, self._pins, kinds, later_resources=later)

    async def pin_first_listing(
        self, bucket: Bucket, listing: Listing, mode: str, *, known: bool
    ) -> None:
        """Pin the definitions of a server's first listing, if the mode trusts the first listing.

        `known` is set if the catalogue contains an earlier listing of this server. If the server
        then has no stored first listing, the pins were lost, and nothing is trusted.

        A stored first listing is completed in three cases. If it has no entries, because the server
        was starting, the next listing with entries completes it once. If the comparison of client
        classes was pending, the result completes it, unless the result comes too late (`completed`
        has the limit). If an earlier version of Toolbus stored it, the kinds that it does not cover
        are added.
        """
        if mode == TRUST:
            return
        server = listing.server
        trusted = mode == FIRST_ONLY
        if server not in self._first:
            if known:
                log.warning("pins.lost", extra={"server": server})
            first = first_listing(listing, trusted=trusted and not known)
            await self._store_first(bucket, server, first)
        if completed(self._first[server], listing, trusted=trusted) != self._first[server]:
            await self._complete_first(bucket, listing, trusted=trusted)
        digests = self._first[server].digests
        missing = _missing(listing, digests, self._pins)
        for start in range(0, len(missing), WRITTEN_AT_ONCE):
            some = missing[start : start + WRITTEN_AT_ONCE]
            await asyncio.gather(*(self._pin(bucket, server, *each) for each in some))

    async def _store_first(self, bucket: Bucket, server: str, first: FirstListing) -> None:
        """Store the first listing, unless another executor stored one before."""
        key = first_key(server)
        if await bucket.swap(key, first.encode(), 0) is None:
            entry = await bucket.get(key)
            first = FirstListing.decode(entry.value) if entry and entry.value else FirstListing()
        self._first[server] = first

    async def _complete_first(self, bucket: Bucket, listing: Listing, *, trusted: bool) -> None:
        """Store the completed first listing, unless another executor completed it before."""
        key = first_key(listing.server)
        entry = await bucket.get(key)
        if entry is None or not entry.value:
            return
        first = FirstListing.decode(entry.value)
        whole = completed(first, listing, trusted=trusted)
        if whole != first and await bucket.swap(key, whole.encode(), entry.revision) is None:
            entry = await bucket.get(key)
            whole = FirstListing.decode(entry.value) if entry and entry.value else first
        self._first[listing.server] = whole

    async def _pin(self, bucket: Bucket, server: str, kind: str, offered: CatalogEntry) -> None:
        """Pin one definition, unless a decision exists already."""
        key = pin_key(kind, server, offered.name)
        pin = Pin(digest=offered.digest, definition=offered.as_sent, by=BY_FIRST, at=time())
        if await bucket.swap(key, pin.encode(), 0) is None:
            entry = await bucket.get(key)
            self._note(key, entry.value if entry else None)
            return
        self._pins[key] = PinState(pin.digest)
        fields = event_about(server, kind, offered, "pinned")
        self.events.publish(DefinitionPinned(**fields, by=BY_FIRST))

    def _known(self, key: str) -> PinState | FirstListing | None:
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
            known[key] = PinState(pin.digest, pin.rejected, pin.by not in ("", BY_FIRST))


def apply_pins(
    listing: Listing,
    mode: str,
    pins: Mapping[str, PinState],
    kinds: Collection[str] = KINDS,
    *,
    later_resources: bool = False,
) -> Listing:
    """Return the listing, with each entry either shown or quarantined according to its pin.

    A server's listing from before its first connection is returned unchanged. Entries of other
    kinds than `kinds` are shown unless they were rejected, because these kinds are not pinned yet.
    With `later_resources`, the mode `first` shows resources without a pin and without signals.
    """
    later_resources = later_resources and mode == FIRST_ONLY
    if mode != TRUST and not listing.known:
        return listing
    quarantined: list[Quarantined] = []
    shown: dict[str, tuple[CatalogEntry, ...]] = {}
    for kind in KINDS:
        allowed = []
        for offered in _all_entries(listing, kind):
            pin = pins.get(pin_key(kind, listing.server, offered.name), NO_PIN)
            undecided = later_resources and kind == RESOURCES and pin == NO_PIN
            shown_later = undecided and bool(offered.digest) and not offered.signals
            reason = _reason(offered, TRUST if shown_later or kind not in kinds else mode, pin)
            if reason:
                quarantined.append(_quarantined(kind, offered, pin.digest, reason))
            else:
                allowed.append(offered)
        shown[kind] = tuple(allowed)
    instructions = next(iter(shown.pop(INSTRUCTIONS)), None)
    return with_instructions(listing, instructions).model_copy(
        update={**shown, "quarantined": tuple(quarantined)}
    )


def _reason(offered: CatalogEntry, mode: str, pin: PinState) -> str:
    """Return the reason why a definition is quarantined, by its pin or by a guard."""
    reason = quarantine_reason(offered.digest, mode, pin)
    if reason == NOT_APPROVED and severity(offered.signals) >= BLOCKING:
        return f"its text contains instructions to a model ({named(offered.signals)})"
    approved = pin.by_operator and offered.digest == pin.digest
    return reason or ("" if approved else offered.held)


def quarantine_reason(digest: str, mode: str, pin: PinState) -> str:
    """Return the reason why a definition is quarantined; empty if the definition is shown."""
    if digest and digest == pin.rejected:
        return "rejected"
    if mode == TRUST:
        return ""
    if not digest:
        return "its definition could not be compared"
    if digest == pin.digest:
        return ""
    return "changed since it was approved" if pin.digest else NOT_APPROVED


def newly_quarantined(before: Listing | None, now: Listing) -> list[Quarantined]:
    """Return the entries that are quarantined now but were not before."""
    known = {(each.kind, each.name, each.digest) for each in (before.quarantined if before else ())}
    return [each for each in now.quarantined if (each.kind, each.name, each.digest) not in known]


def uncallable(listing: Listing) -> frozenset[tuple[str, str]]:
    """Return each method and name that calls must not use.

    These are the quarantined entries, and the entries that could not be listed.
    """
    quarantined = {(each.kind, each.name) for each in listing.quarantined}
    for kind in NAMED:
        shown = {each.name for each in getattr(listing, kind)}
        quarantined |= {(kind, name) for name in listing.dropped if name not in shown}
    return frozenset((method, name) for kind, name in quarantined for method in METHODS[kind])


def newly_flagged(before: Listing | None, now: Listing) -> list[tuple[str, CatalogEntry]]:
    """Return the kind and entry of each version of a definition that has new signals."""
    known = {(kind, each.name, each.digest): each.signals.keys() for kind, each in _flagged(before)}
    return [
        (kind, each)
        for kind, each in _flagged(now)
        if each.signals.keys() - known.get((kind, each.name, each.digest), set())
    ]


def _flagged(listing: Listing | None) -> Iterator[tuple[str, CatalogEntry]]:
    if listing is None:
        return
    for kind in KINDS:
        yield from ((kind, each) for each in _all_entries(listing, kind) if each.signals)


def suspicious(listing: Listing) -> int:
    """Return the number of definitions with signals, whether shown or quarantined."""
    return sum(1 for _ in _flagged(listing))


def flagged_event(server: str, kind: str, entry: CatalogEntry) -> DefinitionFlagged:
    """Return the event `definition.flagged` about an entry with signals."""
    return DefinitionFlagged(
        **event_about(server, kind, entry, "flagged"),
        rules=named(entry.signals),
        score=severity(entry.signals),
        reason=entry.why if isinstance(entry, Quarantined) else "",
    )


def quarantined_event(server: str, quarantined: Quarantined) -> DefinitionEvent:
    """Return the event `definition.changed` about a quarantined entry."""
    fields = event_about(server, quarantined.kind, quarantined, "quarantined_event")
    return DefinitionChanged(**fields, approved_digest=quarantined.approved, reason=quarantined.why)


def event_about(server: str, kind: str, offered: CatalogEntry, what: str) -> dict[str, Any]:
    """Return the fields that all events about a definition share.

    `what` is a part of the event's id.
    """
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


def _missing(
    listing: Listing, first: Mapping[str, str], pins: Mapping[str, PinState]
) -> list[tuple[str, CatalogEntry]]:
    """Return the kind and entry of each definition that has no pin and equals the first listing."""
    return [
        (kind, offered)
        for kind in KINDS
        for offered in entries_of(listing, kind)
        if (key := pin_key(kind, listing.server, offered.name)) not in pins
        and first.get(key, "") == offered.digest != ""
    ]


def _all_entries(listing: Listing, kind: str) -> list[CatalogEntry]:
    """Return the shown and quarantined entries of a kind; those with names sorted."""
    quarantined = [each for each in listing.quarantined if each.kind == kind]
    entries = [*entries_of(listing, kind), *quarantined]
    return sorted(entries, key=lambda each: each.name) if kind in NAMED else entries


def _quarantined(kind: str, offered: CatalogEntry, approved: str, reason: str) -> Quarantined:
    return Quarantined(
        name=offered.name,
        definition=offered.definition,
        digest=offered.digest,
        sent=offered.sent,
        repaired=offered.repaired,
        signals=offered.signals,
        held=offered.held,
        kind=kind,
        approved=approved,
        why=reason,
    )
