"""First listing of a server: the definitions that are trusted without a decision of an operator."""

from collections.abc import Collection
from time import time

from toolbus_common.contracts import CatalogEntry, FirstListing, Listing, Quarantined
from toolbus_common.contracts.records.pin_names import INSTRUCTIONS, KINDS, PINNED, pin_key
from toolbus_common.guards.server_instructions import instructions_entry
from toolbus_executor.catalog.definition_signals import BLOCKING, severity

COMPLETION_SECONDS = 120.0  # a comparison of client classes ends within half of it


def first_listing(listing: Listing, *, trusted: bool) -> FirstListing:
    """Return the first listing to store. If it is not trusted, it contains no definition."""
    return FirstListing(
        digests=_digests(listing) if trusted else {},
        at=time(),
        incomplete=trusted and listing.awaits_comparison,
        kinds=KINDS,
        later_resources=trusted,
        empty=trusted and not _has_entries(listing),
    )


def completed(first: FirstListing, listing: Listing, *, trusted: bool) -> FirstListing:
    """Return a first listing with the definitions of this listing that still belong to it.

    Later than `COMPLETION_SECONDS` after the first listing, no definition that only some clients
    get is added: a server could otherwise prevent the comparison until it offers other tools.
    """
    if first.empty and _has_entries(listing):
        own = first_listing(listing, trusted=trusted)
        filled = own.model_dump(include={"at", "incomplete", "empty"})
        first = first.model_copy(update={**filled, "digests": {**own.digests, **first.digests}})
    if first.incomplete and not listing.awaits_comparison:
        in_time = trusted and time() < first.at + COMPLETION_SECONDS
        added = _digests(listing, only_some_clients=True) if in_time else {}
        compared = {"digests": {**added, **first.digests}, "incomplete": False}
        first = first.model_copy(update=compared)
    new = [kind for kind in KINDS if kind not in first.kinds]
    if new:
        digests = {**_digests(listing, new), **first.digests}
        covered = {"digests": digests, "kinds": KINDS, "later_resources": trusted}
        first = first.model_copy(update=covered)
    return first


def entries_of(listing: Listing, kind: str) -> tuple[CatalogEntry, ...]:
    """Return the entries of a kind that are not quarantined."""
    if kind != INSTRUCTIONS:
        return tuple(getattr(listing, kind))
    own = instructions_entry(listing)
    return () if own is None or isinstance(own, Quarantined) else (own,)


def _has_entries(listing: Listing) -> bool:
    """Return whether a listing has an entry of any kind, shown or not."""
    return any(getattr(listing, kind) for kind in PINNED) or bool(
        listing.quarantined or listing.dropped
    )


def _digests(
    listing: Listing, kinds: Collection[str] = KINDS, *, only_some_clients: bool = False
) -> dict[str, str]:
    """Return the digests of a first listing, except of definitions with instructions to a model."""
    return {
        pin_key(kind, listing.server, offered.name): offered.digest
        for kind in kinds
        for offered in entries_of(listing, kind)
        if offered.digest
        and severity(offered.signals) < BLOCKING
        and (not only_some_clients or offered.shown_to is not None)
    }
