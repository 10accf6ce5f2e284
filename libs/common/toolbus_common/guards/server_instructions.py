"""The instructions of a server as an entry, so that they are pinned like a definition."""

from toolbus_common.contracts import CatalogEntry, Listing
from toolbus_common.contracts.records.pin_names import INSTRUCTIONS
from toolbus_common.crypto.canonical_json import digest_of

_LEGACY = "legacyInstructions"


def instructions_entry(listing: Listing) -> CatalogEntry | None:
    """Return the instructions of a listing, quarantined or not; None if the server has none.

    A server that supports both protocol families can have other instructions in the older one.
    """
    for each in listing.quarantined:
        if each.kind == INSTRUCTIONS:
            return each
    definition = {"instructions": listing.instructions} if listing.instructions else {}
    older = listing.handshake.instructions if listing.handshake else listing.instructions
    if older != listing.instructions:
        definition[_LEGACY] = older
    if not definition:
        return None
    return CatalogEntry(
        name=INSTRUCTIONS,
        definition=definition,
        digest=digest_of(definition),
        signals=listing.signals,
        held=listing.held,
    )


def with_instructions(listing: Listing, entry: CatalogEntry | None) -> Listing:
    """Return the listing with the instructions of an entry; without instructions if it is None."""
    definition = entry.definition if entry else {}
    instructions = definition.get("instructions", "")
    signals = {"signals": entry.signals if entry else {}, "held": entry.held if entry else ""}
    changes = {"instructions": instructions, **signals}
    if listing.handshake is not None:
        older = definition.get(_LEGACY, instructions)
        changes["handshake"] = listing.handshake.model_copy(update={"instructions": older})
    return listing.model_copy(update=changes)
