"""What is pinned and what is held back, as an operator sees it and decides about it."""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from time import time
from typing import Any

from toolbus_cli.desk import Desk, me
from toolbus_cli.errors import CommandError
from toolbus_common.bus import Bucket
from toolbus_common.canonical import digest_of
from toolbus_common.contracts import (
    DefinitionApproved,
    DefinitionFact,
    DefinitionRejected,
    HeldBack,
    Listing,
    Offered,
    Pin,
)
from toolbus_common.grants import full_name, split_name
from toolbus_common.lineage import DEFAULT_SCOPE
from toolbus_common.pins import PINNED, pin_key
from toolbus_common.provision import CATALOGUE, PINS


@dataclass(frozen=True, slots=True)
class Case:
    """One tool or prompt as it is now, and its pin as it was read with it."""

    server: str
    kind: str
    offered: Offered
    pin: Pin
    revision: int  # of the pin; 0 when there is none

    @property
    def name(self) -> str:
        """Its full name, of the server's own."""
        return full_name(self.server, self.offered.name)

    @property
    def why(self) -> str:
        """Why it is held back; empty when it is shown."""
        return self.offered.why if isinstance(self.offered, HeldBack) else ""


class Pinboard:
    """One operator before the catalogue and the pins."""

    def __init__(self, desk: Desk, catalogue: Bucket, pins: Bucket) -> None:
        self._desk = desk
        self._catalogue = catalogue
        self._pins = pins

    async def cases(self, named: str = "", *, everything: bool = False) -> list[Case]:
        """What is held back, of all servers, of one or by a full name; or also what is shown.

        Raises:
            CommandError: nothing of that name is declared or offered.

        """
        server, own = split_name(named) if "__" in named else (named, "")
        declared = (await self._desk.declared()).declaration.servers
        if server and server not in declared:
            raise CommandError(
                f"No server '{server}' is declared; 'toolbus get servers' shows them."
            )
        wanted = [server] if server else sorted(declared)
        listings = [found for name in wanted if (found := await self._listing(name)) is not None]
        offered = [each for listing in listings for each in _offered(listing, own)]
        if own and not offered:
            raise CommandError(f"{server} offers no '{own}'; 'toolbus pins list --all' shows all.")
        held = [each for each in offered if everything or isinstance(each[2], HeldBack)]
        return list(await asyncio.gather(*(self._case(*each) for each in held)))

    async def approve(self, case: Case) -> None:
        """Approve exactly the definition of the case. Raises `CommandError` if it has changed."""
        offered = case.offered
        if digest_of(offered.definition) != offered.digest:
            raise CommandError(f"The digest of {case.name} is not that of its definition.")
        await self._still(case)
        pin = Pin(digest=offered.digest, definition=offered.definition, by=me(), at=time())
        await self._write(case, pin)
        self._desk.record(DefinitionApproved(**_about(case, "approved")))

    async def reject(self, case: Case) -> None:
        """Refuse the definition of the case, shown or not; another one stays approved."""
        digest = case.offered.digest
        withdrawn = {"digest": ""} if case.pin.digest == digest else {}
        told = {"rejected": digest, "by": me(), "at": time()}
        await self._write(case, case.pin.model_copy(update={**told, **withdrawn}))
        self._desk.record(DefinitionRejected(**_about(case, "rejected")))

    async def _write(self, case: Case, pin: Pin) -> None:
        key = pin_key(case.kind, case.server, case.offered.name)
        if await self._pins.swap(key, pin.encode(), case.revision) is None:
            raise CommandError(
                f"Somebody else decided about {case.name} meanwhile; see 'toolbus pins list'."
            )

    async def _still(self, case: Case) -> None:
        """What was shown must be what the server offers now."""
        listing = await self._listing(case.server)
        now = [
            offered.digest
            for _, kind, offered in (_offered(listing, case.offered.name) if listing else ())
            if kind == case.kind
        ]
        if now != [case.offered.digest]:
            raise CommandError(changed_again(case.name))

    async def _case(self, server: str, kind: str, offered: Offered) -> Case:
        entry = await self._pins.get(pin_key(kind, server, offered.name))
        if entry is None or entry.value is None:
            return Case(server, kind, offered, Pin(), 0)
        return Case(server, kind, offered, Pin.decode(entry.value), entry.revision)

    async def _listing(self, server: str) -> Listing | None:
        entry = await self._catalogue.get(server)
        return Listing.decode(entry.value) if entry is not None and entry.value else None


async def at_pins(desk: Desk) -> Pinboard:
    """The pinboard of a desk."""
    return Pinboard(desk, await desk.bus.bucket(CATALOGUE), await desk.bus.bucket(PINS))


def changed_again(name: str) -> str:
    """What is said when a definition is no longer the one that was shown."""
    return f"{name} has changed since it was shown; look again with 'toolbus pins diff {name}'."


def _offered(listing: Listing, own: str) -> Iterator[tuple[str, str, Offered]]:
    held: Iterable[tuple[str, Offered]] = ((each.kind, each) for each in listing.held)
    shown = ((kind, each) for kind in PINNED for each in getattr(listing, kind))
    found = sorted((*held, *shown), key=lambda each: (each[0] != PINNED[0], each[1].name))
    for kind, offered in found:
        if not own or offered.name == own:
            yield listing.server, kind, offered


def _about(case: Case, what: str) -> dict[str, Any]:
    """The fields of the fact about a decision."""
    at, name = time(), case.offered.name
    told = DefinitionFact(
        id=f"{pin_key(case.kind, case.server, name)}.{what}.{at:.6f}",
        at=at,
        scope=DEFAULT_SCOPE,
        server=case.server,
        kind=case.kind,
        tool=name,
        definition_digest=case.offered.digest,
        approved_digest=case.pin.digest,
        by=me(),
    )
    return told.model_dump()
