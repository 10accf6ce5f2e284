"""Lists of servers that offer different definitions to clients with different capabilities."""

import asyncio
from collections.abc import Iterable

import msgspec

from toolbus_common.config import Server
from toolbus_common.contracts import CatalogEntry, Listing
from toolbus_common.contracts.records.pin_names import NAMED
from toolbus_common.mcp.client_classes import ALL, CLASSES, GROUPS, NONE, capabilities_of
from toolbus_executor.catalog.publisher import CatalogPublisher
from toolbus_executor.mcp_messages.client_capabilities import Kinds, kinds_of
from toolbus_executor.upstreams.base import Described, Upstream
from toolbus_executor.upstreams.listing import OTHERS, TOOLS, listed, with_left_out
from toolbus_executor.upstreams.protocol_families import BothFamilies
from toolbus_executor.upstreams.sessions.idle_shutdown import listing_fields
from toolbus_executor.upstreams.sessions.separate_sessions import Separated

_KINDS = (TOOLS.name, *(kind.name for kind in OTHERS))


async def list_for_all_classes(
    described: Described, upstream: Upstream, entry: CatalogPublisher, declared: Server
) -> Listing:
    """List a server's definitions, each with the classes of clients that the server offers it to.

    The comparison of the classes needs another session. The result of a finished comparison is
    therefore reused while the list and the configuration are the same. Until the first comparison
    is finished, the listing shows every entry to all clients.

    Raises:
        UpstreamInvalidError: the server's tools cannot be listed.

    """
    limit = declared.list_limit
    listing = await listed(entry.name, described, upstream.list_page, limit)
    noted = listing_fields(upstream, declared)
    listing = with_left_out(listing, upstream.left_out).model_copy(update=noted)
    lists = upstream.lists if isinstance(upstream, BothFamilies) else upstream
    if not isinstance(lists, Separated):
        return listing
    own_class = ALL if lists.sends_requests else NONE
    for known in (lists.comparison.result, await entry.now()):
        if known is None or known.declared != listing.declared or known.depends is None:
            continue
        if _digests(listing) == _digests_for(known, own_class):
            return _with_known_classes(listing, known)
    compared = _compare(described, lists, listing, own_class, limit)
    found = await lists.comparison.wait(compared)
    return found or listing.model_copy(update={"awaits_comparison": True})


async def _compare(
    described: Described, upstream: Separated, listing: Listing, own_class: str, limit: int
) -> Listing:
    async def as_listed(name: str) -> Listing:
        async with upstream.listed_as(kinds_for(name)) as page:
            if page is None:
                return listing
            return await listed(listing.server, described, page, limit)

    other = NONE if own_class == ALL else ALL
    found = {own_class: listing, other: await as_listed(other)}
    if all(
        _digests(found[other])[kind].keys() == _digests(listing)[kind].keys() for kind in _KINDS
    ):
        return listing.model_copy(update={"depends": False})
    lists = await asyncio.gather(*(as_listed(name) for name in GROUPS))
    found |= dict(zip(GROUPS, lists, strict=True))
    merged = {kind: _merged(kind, found) for kind in _KINDS}
    return listing.model_copy(update={"depends": True, **merged})


def kinds_for(name: str) -> Kinds:
    """Return the kinds of input requests that a session for a class of clients declares."""
    return kinds_of(msgspec.json.encode(capabilities_of(name)).decode())


def _merged(kind: str, found: dict[str, Listing]) -> tuple[CatalogEntry, ...]:
    """Return the entries offered to any class, each with its classes."""
    entries: dict[str, CatalogEntry] = {}
    seen = {name: {each.name for each in getattr(found[name], kind)} for name in found}
    for listing in found.values():
        for each in getattr(listing, kind):
            entries.setdefault(each.name, each)
    shown = []
    for name, each in entries.items():
        classes = tuple(each_class for each_class in CLASSES if _is_shown(name, each_class, seen))
        shown.append(each.model_copy(update={"shown_to": classes}) if classes != CLASSES else each)
    return tuple(sorted(shown, key=lambda each: each.name) if kind in NAMED else shown)


def _is_shown(name: str, client: str, seen: dict[str, set[str]]) -> bool:
    """Return whether an entry is offered to a class of clients.

    A class that was not listed combines several groups, and gets the entries of all its groups. If
    the server also offers an entry to clients without capabilities, the entry is a fallback: a
    combined class gets it only if each of its groups gets it.
    """
    if client in seen:
        return name in seen[client]
    every = (name in seen[group] for group in client.split("+"))
    return all(every) if name in seen[NONE] else any(every)


def _with_known_classes(listing: Listing, known: Listing) -> Listing:
    """Return the listing with the classes of an earlier comparison."""
    if not known.depends:
        return listing.model_copy(update={"depends": False})
    found = {kind: tuple(_all_entries(known, kind)) for kind in _KINDS}
    return listing.model_copy(update={"depends": True, **found})


def _digests_for(known: Listing, name: str) -> dict[str, dict[str, str]]:
    return {
        kind: {
            each.name: _compared(kind, each)
            for each in _all_entries(known, kind)
            if each.shown_to is None or name in each.shown_to
        }
        for kind in _KINDS
    }


def _all_entries(known: Listing, kind: str) -> Iterable[CatalogEntry]:
    """Return the listed and the quarantined entries of one kind."""
    quarantined = (
        CatalogEntry(**{name: getattr(each, name) for name in CatalogEntry.model_fields})
        for each in known.quarantined
        if each.kind == kind
    )
    return (*getattr(known, kind), *quarantined)


def _digests(listing: Listing) -> dict[str, dict[str, str]]:
    return {
        kind: {each.name: _compared(kind, each) for each in getattr(listing, kind)}
        for kind in _KINDS
    }


def _compared(kind: str, entry: CatalogEntry) -> str:
    """Return what must be equal in all lists besides the name; empty if the URI is enough."""
    return entry.digest if kind in NAMED else ""
