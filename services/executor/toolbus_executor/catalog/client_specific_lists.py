"""List what a server offers to each class of clients, where it depends on their capabilities."""

import asyncio
from collections.abc import Iterable

import msgspec

from toolbus_common.config import Server
from toolbus_common.contracts import CatalogEntry, Listing
from toolbus_common.contracts.records.pin_names import PINNED
from toolbus_common.mcp.client_classes import ALL, CLASSES, GROUPS, NONE, capabilities_of
from toolbus_executor.catalog.publisher import Entry
from toolbus_executor.mcp_messages.client_capabilities import Kinds, kinds_of
from toolbus_executor.upstreams.base import Described, Upstream
from toolbus_executor.upstreams.listing import OTHERS, TOOLS, listed, with_left_out
from toolbus_executor.upstreams.protocol_families import BothFamilies
from toolbus_executor.upstreams.sessions.idle_shutdown import noted_of
from toolbus_executor.upstreams.sessions.separate_sessions import Separated

_KINDS = (TOOLS.name, *(kind.name for kind in OTHERS))


async def listed_for_all(
    described: Described, upstream: Upstream, entry: Entry, declared: Server
) -> Listing:
    """List what a server offers; each entry says to which classes of clients.

    The comparison takes another session, so one that found the same list of the same declaration
    is not repeated. Until it is made, everything is shown to every client.

    Raises:
        UpstreamFaultError: its tools cannot be listed.

    """
    limit = declared.list_limit
    listing = await listed(entry.name, described, upstream.list_page, limit)
    noted = noted_of(upstream, declared)
    listing = with_left_out(listing, upstream.left_out).model_copy(update=noted)
    lists = upstream.lists if isinstance(upstream, BothFamilies) else upstream
    if not isinstance(lists, Separated):
        return listing
    own = ALL if lists.asks else NONE
    for known in (lists.comparison.result, await entry.now()):
        if known is None or known.declared != listing.declared or known.depends is None:
            continue
        if _names(listing) == _of_class(known, own):
            return _marked(listing, known)
    compared = _compared(described, lists, listing, own, limit)
    return await lists.comparison.wait(compared) or listing


async def _compared(
    described: Described, upstream: Separated, listing: Listing, own: str, limit: int
) -> Listing:
    async def as_listed(name: str) -> Listing:
        async with upstream.listed_as(kinds_for(name)) as page:
            if page is None:
                return listing
            return await listed(listing.server, described, page, limit)

    other = NONE if own == ALL else ALL
    found = {own: listing, other: await as_listed(other)}
    if all(_names(found[other])[kind].keys() == _names(listing)[kind].keys() for kind in _KINDS):
        return listing.model_copy(update={"depends": False})
    lists = await asyncio.gather(*(as_listed(name) for name in GROUPS))
    found |= dict(zip(GROUPS, lists, strict=True))
    merged = {kind: _merged(kind, found) for kind in _KINDS}
    return listing.model_copy(update={"depends": True, **merged})


def kinds_for(name: str) -> Kinds:
    """Return the kinds of questions that a session for a class of clients declares."""
    return kinds_of(msgspec.json.encode(capabilities_of(name)).decode())


def _merged(kind: str, found: dict[str, Listing]) -> tuple[CatalogEntry, ...]:
    """Everything that any class is offered, each with the classes that are."""
    entries: dict[str, CatalogEntry] = {}
    seen = {name: {each.name for each in getattr(found[name], kind)} for name in found}
    for listing in found.values():
        for each in getattr(listing, kind):
            entries.setdefault(each.name, each)
    shown = []
    for name, each in entries.items():
        classes = tuple(one for one in CLASSES if _is_shown(name, one, seen))
        shown.append(each.model_copy(update={"shown_to": classes}) if classes != CLASSES else each)
    return tuple(sorted(shown, key=lambda each: each.name) if kind in PINNED else shown)


def _is_shown(name: str, client: str, seen: dict[str, set[str]]) -> bool:
    """Whether a class is offered something. Two groups together are offered what either is.

    What clients are offered that can be asked nothing is for them a way to do without: whoever can
    be asked something is offered it where all of its groups are.
    """
    if client in seen:
        return name in seen[client]
    every = (name in seen[group] for group in client.split("+"))
    return all(every) if name in seen[NONE] else any(every)


def _marked(listing: Listing, known: Listing) -> Listing:
    """The same list, as an earlier comparison marked it, with what other classes are offered."""
    if not known.depends:
        return listing.model_copy(update={"depends": False})
    found = {kind: tuple(_every(known, kind)) for kind in _KINDS}
    return listing.model_copy(update={"depends": True, **found})


def _of_class(known: Listing, name: str) -> dict[str, dict[str, str]]:
    return {
        kind: {
            each.name: each.digest
            for each in _every(known, kind)
            if each.shown_to is None or name in each.shown_to
        }
        for kind in _KINDS
    }


def _every(known: Listing, kind: str) -> Iterable[CatalogEntry]:
    """What an entry of the catalogue lists, and what it holds back."""
    held = (
        CatalogEntry(**{name: getattr(each, name) for name in CatalogEntry.model_fields})
        for each in known.quarantined
        if each.kind == kind
    )
    return (*getattr(known, kind), *held)


def _names(listing: Listing) -> dict[str, dict[str, str]]:
    return {kind: {each.name: each.digest for each in getattr(listing, kind)} for kind in _KINDS}
