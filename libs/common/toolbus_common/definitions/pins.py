"""Pinned and quarantined definitions, and an operator's decisions about them."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from time import time
from typing import Any

from toolbus_common.access.tool_names import Names
from toolbus_common.access.tool_patterns import full_name, split_name
from toolbus_common.config import Server
from toolbus_common.config_store.repository import ConfigRepository
from toolbus_common.contracts import (
    CatalogEntry,
    DefinitionApproved,
    DefinitionEvent,
    DefinitionRejected,
    Listing,
    Pin,
    Quarantined,
)
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.contracts.records.pin_names import (
    INSTRUCTIONS,
    KINDS,
    NAMED,
    PINNED,
    pin_key,
    pinned_part,
)
from toolbus_common.crypto.canonical_json import digest_of
from toolbus_common.definitions.capability_changes import capability_changes
from toolbus_common.definitions.definition_diff import differences, texts
from toolbus_common.definitions.visible_text import counted
from toolbus_common.errors import ConflictError, UnknownEntryError
from toolbus_common.flow.labels import Labels, labels_of_tool
from toolbus_common.guards.server_instructions import instructions_entry
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.topology import CATALOGUE, PINS


@dataclass(frozen=True, slots=True)
class Case:
    """The present definition of an entry, or the instructions of a server, and its pin."""

    server: str
    kind: str
    offered: CatalogEntry
    pin: Pin
    revision: int  # the pin's revision in the bucket; 0 if there is no pin
    labels: Labels | None = None  # of a tool, for information flow

    @property
    def name(self) -> str:
        """The full name, with the tool name that the server uses."""
        return full_name(self.server, self.offered.name)

    @property
    def why(self) -> str:
        """The reason for the quarantine; empty if the definition is listed."""
        return self.offered.why if isinstance(self.offered, Quarantined) else ""


class Pinboard:
    """An operator's access to the catalogue and the pins."""

    def __init__(self, repository: ConfigRepository, catalogue: Bucket, pins: Bucket) -> None:
        self._repository = repository
        self._catalogue = catalogue
        self._pins = pins

    async def cases(self, named: str = "", *, everything: bool = False) -> list[Case]:
        """Return quarantined definitions; with `everything`, also listed definitions.

        `named` is a server or the full name of a definition; empty selects all servers.

        Raises:
            UnknownEntryError: no server or definition has that name.

        """
        server, own = split_name(named) if "__" in named else (named, "")
        declared = (await self._repository.declared()).configuration.servers
        if server and server not in declared:
            raise UnknownEntryError(
                f"No server '{server}' is configured; 'toolbus get servers' lists them."
            )
        wanted = [server] if server else sorted(declared)
        listings = [found for name in wanted if (found := await self._listing(name)) is not None]
        offered = [each for listing in listings for each in _offered(listing, own)]
        if own and not offered:
            raise UnknownEntryError(
                f"The server '{server}' has no definition '{own}'; 'toolbus pins list {server} "
                "--all' lists its definitions."
            )
        held = [each for each in offered if everything or isinstance(each[2], Quarantined)]
        return list(await asyncio.gather(*(self._case(declared[each[0]], *each) for each in held)))

    async def approve(self, *cases: Case) -> None:
        """Approve exactly the definitions of these cases; check all before approving any.

        Raises:
            ConflictError: a definition changed, or would take the name of a listed tool.

        """
        servers = (await self._repository.declared()).configuration.servers
        listings = [found for name in servers if (found := await self._listing(name)) is not None]
        for case in cases:
            _still(case, listings)
        _take_no_name(cases, listings, servers)
        for case in cases:
            offered = case.offered
            pin = Pin(
                digest=offered.digest, definition=offered.as_sent, by=self._repository.by, at=time()
            )
            await self._write(case, pin)
            self._repository.record(
                DefinitionApproved(**_about(case, "approved", self._repository.by))
            )

    async def reject(self, case: Case) -> None:
        """Reject this version of the definition. Another approved version remains approved."""
        digest = case.offered.digest
        withdrawn = {"digest": ""} if case.pin.digest == digest else {}
        decision = {"rejected": digest, "by": self._repository.by, "at": time()}
        await self._write(case, case.pin.model_copy(update={**decision, **withdrawn}))
        self._repository.record(DefinitionRejected(**_about(case, "rejected", self._repository.by)))

    async def _write(self, case: Case, pin: Pin) -> None:
        key = pin_key(case.kind, case.server, case.offered.name)
        if await self._pins.swap(key, pin.encode(), case.revision) is None:
            raise ConflictError(
                f"Another operator decided about '{case.name}' meanwhile; list definitions again."
            )

    async def _case(self, declared: Server, server: str, kind: str, offered: CatalogEntry) -> Case:
        entry, labels = await self._pins.get(pin_key(kind, server, offered.name)), None
        if kind == "tools":
            labels = labels_of_tool(declared, offered.name, offered.as_sent)
        if entry is None or entry.value is None:
            return Case(server, kind, offered, Pin(), 0, labels)
        return Case(server, kind, offered, Pin.decode(entry.value), entry.revision, labels)

    async def _listing(self, server: str) -> Listing | None:
        entry = await self._catalogue.get(server)
        return Listing.decode(entry.value) if entry is not None and entry.value else None


async def at_pins(repository: ConfigRepository) -> Pinboard:
    """Return the `Pinboard` of an installation."""
    return Pinboard(
        repository, await repository.bus.bucket(CATALOGUE), await repository.bus.bucket(PINS)
    )


def changed_again(name: str) -> str:
    """Return the error text for a definition that changed since it was displayed."""
    return f"'{name}' has changed since it was shown; review the differences again."


def _still(case: Case, listings: Iterable[Listing]) -> None:
    """Check that the server still has the displayed definition with the displayed digest."""
    now = [
        offered.digest
        for listing in listings
        if listing.server == case.server
        for _, kind, offered in _offered(listing, case.offered.name)
        if kind == case.kind
    ]
    if (
        now != [case.offered.digest]
        or digest_of(pinned_part(case.kind, case.offered.as_sent)) != now[0]
    ):
        raise ConflictError(changed_again(case.name))


def _take_no_name(
    cases: Iterable[Case], listings: list[Listing], servers: Mapping[str, Server]
) -> None:
    """Check that the approval does not hide a listed tool with a similar name."""
    before, after = Names(listings, servers), Names(_with(cases, listings), servers)
    for listing in listings:
        for kind in NAMED:
            for offered in getattr(listing, kind):
                place = (kind, listing.server, offered.name)
                was, will = before.shown(*place), after.shown(*place)
                if was and was.full and not (will and will.full):
                    why = (after.dropped | after.crowded)[place]
                    raise ConflictError(
                        f"'{full_name(listing.server, offered.name)}' would no longer be listed: "
                        f"{why}. Give one of the two an alias first; nothing was approved."
                    )


def _with(cases: Iterable[Case], listings: list[Listing]) -> Iterator[Listing]:
    """Yield the listings that would result from the approval of these cases."""
    for listing in listings:
        more: dict[str, tuple[CatalogEntry, ...]] = {
            kind: getattr(listing, kind) for kind in PINNED
        }
        for case in cases:
            if case.server == listing.server and case.why and case.kind in more:
                more[case.kind] = (*more[case.kind], case.offered)
        yield listing.model_copy(update=more)


def _offered(listing: Listing, own: str) -> Iterator[tuple[str, str, CatalogEntry]]:
    held: Iterable[tuple[str, CatalogEntry]] = ((each.kind, each) for each in listing.quarantined)
    shown = [(kind, each) for kind in PINNED for each in getattr(listing, kind)]
    instructions = instructions_entry(listing)
    if instructions is not None and not isinstance(instructions, Quarantined):
        shown.append((INSTRUCTIONS, instructions))
    found = sorted((*held, *shown), key=lambda each: (KINDS.index(each[0]), each[1].name))
    for kind, offered in found:
        if not own or offered.name == own:
            yield listing.server, kind, offered


def _about(case: Case, what: str, by: str) -> dict[str, Any]:
    """Return the fields of the event that records a decision on a case."""
    at, name = time(), case.offered.name
    event = DefinitionEvent(
        id=f"{pin_key(case.kind, case.server, name)}.{what}.{at:.6f}",
        at=at,
        customer=DEFAULT_CUSTOMER,
        server=case.server,
        kind=case.kind,
        tool=name,
        definition_digest=case.offered.digest,
        approved_digest=case.pin.digest,
        by=by,
    )
    return event.model_dump()


def review_of(case: Case) -> dict[str, Any]:
    """Return what a person needs to decide about a definition. Hidden characters are named."""
    before, after = case.pin.definition, case.offered.as_sent
    changes = capability_changes(before, after) if case.kind == "tools" else []
    return {
        "name": case.offered.name,
        "kind": case.kind,
        "quarantined": case.why,
        "digest": case.offered.digest,
        "approved": case.pin.digest,
        "rejected": case.pin.rejected,
        "by": case.pin.by,
        "at": case.pin.at,
        "signals": case.offered.signals,
        "differences": [
            {"sign": each.sign, "lines": each.lines()} for each in differences(before, after)
        ],
        "capabilities": changes,
        "hidden": counted(texts(after)),
        "definition": after,
    }
