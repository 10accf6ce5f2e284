"""Listings of one server, and the part of an executor that pins their definitions."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from harness.audit.events import bus_of
from harness.services.call_runner import RecordedEvents
from toolbus_common.contracts import (
    CatalogEntry,
    Listing,
    ServerState,
)
from toolbus_common.contracts.records.pin_names import pinned_part
from toolbus_common.crypto.canonical_json import digest_of
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.topology import CATALOGUE, PINS
from toolbus_common.settings import Settings
from toolbus_executor.catalog.definition_pins import Pins
from toolbus_executor.catalog.publisher import CatalogPublisher

SCHEMA = {"type": "object"}


def offered(name: str, description: str = "") -> CatalogEntry:
    """Return a definition as a server lists it."""
    definition = {"name": name, "description": description, "inputSchema": SCHEMA}
    return CatalogEntry(name=name, definition=definition, digest=digest_of(definition))


def listing(*tools: CatalogEntry, prompts: tuple[CatalogEntry, ...] = ()) -> Listing:
    """Return a listing of the server docs."""
    return Listing(server="docs", state=ServerState.READY, tools=tools, prompts=prompts)


def entry(kind: str, name: str, /, **definition: Any) -> CatalogEntry:
    """Return an entry of any kind; `definition` are its further members."""
    key = {"resources": "uri", "templates": "uriTemplate"}.get(kind, "name")
    whole = {key: name, **definition}
    return CatalogEntry(name=name, definition=whole, digest=digest_of(pinned_part(kind, whole)))


def listing_of(instructions: str = "", /, **lists: CatalogEntry) -> Listing:
    """Return a listing with one entry of each of these kinds."""
    entries = {kind: (each,) for kind, each in lists.items()}
    return Listing(
        server="docs",
        state=ServerState.READY,
        instructions=instructions,
        **entries,
    )


def listed_names(found: Listing | None) -> list[str]:
    """Return the names of the listed tools."""
    return [tool.name for tool in found.tools] if found else []


def held(found: Listing | None) -> dict[str, str]:
    """Return the quarantined names with their reasons."""
    return {each.name: each.why for each in found.quarantined} if found else {}


@dataclass
class PinningExecutor:
    """The part of an executor that concerns pins: the watched pins, and one server's entry."""

    pins: Pins
    entry: CatalogPublisher
    bucket: Bucket
    events: RecordedEvents

    async def lists(
        self,
        *tools: CatalogEntry,
        prompts: tuple[CatalogEntry, ...] = (),
        awaits_comparison: bool = False,
    ) -> Listing:
        """Return the published listing of these definitions."""
        new = listing(*tools, prompts=prompts)
        new = new.model_copy(update={"awaits_comparison": awaits_comparison})
        await self.entry.publish(await self.entry.take(new, self.bucket))
        found = await self.entry.now()
        assert found is not None
        return found

    def published_tools(self, kind: type[Any]) -> list[str]:
        """Return the tools of the published events of a kind."""
        return [event.tool for event in self.events.published if isinstance(event, kind)]


async def listed(one: PinningExecutor, listing: Listing) -> Listing:
    """Return the published listing after this one."""
    await one.entry.publish(await one.entry.take(listing, one.bucket))
    found = await one.entry.now()
    assert found is not None
    return found


@asynccontextmanager
async def executor(settings: Settings, mode: str = "first") -> AsyncIterator[PinningExecutor]:
    """Run the part of an executor that pins the definitions of the server docs."""
    async with bus_of("executor", settings) as bus:
        events = RecordedEvents()
        pins, bucket = Pins(events), await bus.bucket(PINS)
        entry = CatalogPublisher("docs", mode, await bus.bucket(CATALOGUE), pins, events)
        pins.on_change = lambda _server: entry.reapply_pins()
        caught_up = asyncio.Event()

        async def watch() -> None:
            async for change in bucket.watch():
                pins.apply_change(change)
                if change is None:
                    caught_up.set()

        watching = asyncio.create_task(watch())
        await caught_up.wait()
        try:
            yield PinningExecutor(pins, entry, bucket, events)
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            await entry.close(removed=False)
