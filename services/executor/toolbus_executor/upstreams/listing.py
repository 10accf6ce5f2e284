"""Listing of a server from its lists. The size is limited, and unusable entries are omitted."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import time
from typing import Any

import msgspec

from toolbus_common.access.tool_names import LONGEST_OWN, is_own_name
from toolbus_common.config.servers.server import LARGEST_LIST
from toolbus_common.contracts import CatalogEntry, Listing, ServerState
from toolbus_common.contracts.records.pin_names import PINNED, pinned_part
from toolbus_common.crypto.canonical_json import digest_of
from toolbus_common.errors import UpstreamError, UpstreamInvalidError, UpstreamRefusedError
from toolbus_executor.repair import Read, UnreadableError, read_definition
from toolbus_executor.resilience.failure_log import shared_reason
from toolbus_executor.upstreams.base import Described
from toolbus_executor.upstreams.call_channel import METHOD_NOT_FOUND
from toolbus_executor.upstreams.mcp.param_headers import AnnotationError, params_of

MAX_PAGES = 100
MAX_ENTRIES = 5_000
MAX_DROPPED = 200  # dropped entries that are reported by name
DEEPEST_DEFINITION = 40
DISCOVER = "server/discover"
LONGEST_TTL = 24 * 3600 * 1000  # milliseconds

_LONGEST_URI = 2048
_URI = re.compile(rf"[^\x00-\x20\x7f]{{1,{_LONGEST_URI}}}")
_AT_ONCE = 16  # definitions that are processed before other tasks can run
_LARGE = 64 * 1024  # bytes; the digest of a larger definition is computed in a thread
_LONGEST_REASON = 300
_LONGEST_REASONED = 96  # reported characters of an entry's name

Page = Callable[[str, str | None], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of list: its request, and the member that identifies an entry."""

    name: str
    method: str
    member: str
    key: str
    capability: str


TOOLS = Kind("tools", "tools/list", "tools", "name", "tools")
OTHERS = (
    Kind("prompts", "prompts/list", "prompts", "name", "prompts"),
    Kind("resources", "resources/list", "resources", "uri", "resources"),
    Kind("templates", "resources/templates/list", "resourceTemplates", "uriTemplate", "resources"),
)


@dataclass(slots=True)
class _Filter:
    """Filter of usable entries. The entries of all kinds together have at most `limit` bytes."""

    server: str = ""
    limit: int = LARGEST_LIST
    dropped: dict[str, str] = field(default_factory=dict)
    more: int = 0  # dropped entries that are not reported by name
    size: int = 0

    @property
    def reported(self) -> dict[str, str]:
        """The dropped entries with the reasons.

        The number of all further entries is the last item.
        """
        return self.dropped | ({"…": f"and {self.more} more"} if self.more else {})

    async def sift(self, kind: Kind, entries: list[Any]) -> tuple[CatalogEntry, ...]:
        """Return the usable entries, sorted by name. Resources stay in the server's order."""
        usable: dict[str, CatalogEntry] = {}
        for number, definition in enumerate(entries):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
            name = definition.get(kind.key) if isinstance(definition, dict) else None
            try:
                offered = self._entry(kind, definition, name, usable)
            except UnreadableError as error:
                self.drop(str(name)[:_LONGEST_REASONED] if name else f"#{number}", str(error))
            else:
                usable[offered.name] = offered
        return tuple(usable[name] for name in (sorted(usable) if kind.key == "name" else usable))

    def drop(self, shown: str, reason: str) -> None:
        """Record a dropped entry and the reason."""
        if len(self.dropped) < MAX_DROPPED or shown in self.dropped:
            self.dropped[shown] = reason
        else:
            self.more += 1

    def _entry(
        self, kind: Kind, definition: Any, name: Any, usable: dict[str, CatalogEntry]
    ) -> CatalogEntry:
        """Return the entry if clients can parse and call it. Raises `UnreadableError`."""
        if not isinstance(definition, dict) or not isinstance(name, str):
            raise UnreadableError(f"it has no {kind.key}")
        fits, longest = (
            (is_own_name(name), LONGEST_OWN)
            if kind.key == "name"
            else (_URI.fullmatch(name), _LONGEST_URI)
        )
        if not fits:
            raise UnreadableError(
                f"its {kind.key} is empty, has more than {longest} characters, or contains "
                "invisible characters"
            )
        if name in usable:
            raise UnreadableError(f"its {kind.key} is listed twice")
        if _deeper_than(definition, DEEPEST_DEFINITION):
            raise UnreadableError(f"its definition is nested deeper than {DEEPEST_DEFINITION}")
        read = read_definition(kind.name, definition)
        if kind is TOOLS:
            _check_annotations(read.definition["inputSchema"])
        self._add_size(definition, read)
        return CatalogEntry(
            name=name,
            definition=read.definition,
            sent=definition if read.repaired else None,
            repaired=read.repaired,
        )

    def _add_size(self, definition: dict[str, Any], read: Read) -> None:
        """Add the size of an entry. Raises `UnreadableError` if the total exceeds the limit."""
        own = len(msgspec.json.encode(definition))
        both = own + (len(msgspec.json.encode(read.definition)) if read.repaired else 0)
        if self.size + both > self.limit:
            raise UnreadableError(
                f"its definition of {own} bytes would exceed the limit of {self.limit} bytes for "
                f"all lists; raise servers.{self.server}.list_limit"
            )
        self.size += both


class _Hints:
    """Recorder of the cache lifetimes of a server's pages. Session-based servers send none."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self.least: int | None = None
        self.each: dict[str, int] = {}  # by method

    async def page(self, method: str, cursor: str | None) -> dict[str, Any]:
        """Return one page of a list, and record its cache lifetime."""
        result = await self._page(method, cursor)
        ttl = result.get("ttlMs")
        if isinstance(ttl, int) and not isinstance(ttl, bool):
            own = max(0, min(ttl, self.each.get(method, LONGEST_TTL)))
            self.each[method] = own
            self.least = own if self.least is None else min(self.least, own)
        return result


async def listed(
    server: str, described: Described, page: Page, limit: int = LARGEST_LIST
) -> Listing:
    """List all definitions of a server within `limit` bytes, and return the listing to publish.

    A list that fails is omitted, with the reason.

    Raises:
        UpstreamInvalidError: the tools cannot be listed.

    """
    sieve, hints, began = _Filter(server, limit), _Hints(page), time()
    page, failed = hints.page, dict[str, str]()
    tools = await _tools(described, page)
    found: dict[str, tuple[CatalogEntry, ...]] = {"tools": await sieve.sift(TOOLS, tools)}
    for kind in OTHERS:
        if described.has(kind.capability):
            found[kind.name] = await sieve.sift(kind, await _others(kind, page, failed))
    for name in PINNED:
        found[name] = await _with_digests(name, found.get(name, ()))
    return Listing(
        server=server,
        state=ServerState.READY,
        family=described.family,
        version=described.version,
        instructions=described.instructions,
        capabilities=described.capabilities,
        dropped=sieve.reported,
        failed=failed,
        server_info=described.info,
        hints=hints.each | ({} if described.ttl_ms is None else {DISCOVER: described.ttl_ms}),
        ttl_ms=hints.least,
        listed_at=began if hints.least else 0.0,
        **found,
    )


def repairs_of(listing: Listing) -> dict[str, str]:
    """Return the repairs of up to `MAX_DROPPED` definitions, by name."""
    every = (*listing.tools, *listing.prompts, *listing.resources, *listing.templates)
    repaired = [each for each in (*every, *listing.quarantined) if each.repaired]
    return {each.name[:_LONGEST_REASONED]: each.repaired for each in repaired[:MAX_DROPPED]}


def with_left_out(listing: Listing, left_out: dict[str, str]) -> Listing:
    """Return the listing with the entries that the upstream itself omitted, as dropped entries."""
    if not left_out:
        return listing
    sieve = _Filter(dropped=dict(listing.dropped))
    for shown, reason in left_out.items():
        sieve.drop(shown[:_LONGEST_REASONED], reason[:_LONGEST_REASON])
    return listing.model_copy(update={"dropped": sieve.reported})


async def _with_digests(kind: str, entries: tuple[CatalogEntry, ...]) -> tuple[CatalogEntry, ...]:
    """Return the entries with their digests. Other tasks can run in the meantime."""
    found = []
    for number, each in enumerate(entries):
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
        pinned = pinned_part(kind, each.as_sent)
        if len(msgspec.json.encode(pinned)) > _LARGE:
            digest = await asyncio.to_thread(digest_of, pinned)
        else:
            digest = digest_of(pinned)
        found.append(each.model_copy(update={"digest": digest}))
    return tuple(found)


async def digests_of(kind: Kind, entries: list[Any]) -> dict[str, str]:
    """Return the digests of all usable entries, by name."""
    usable = await _with_digests(kind.name, await _Filter().sift(kind, entries))
    return {each.name: each.digest for each in usable}


async def every_page(kind: Kind, page: Page) -> list[Any]:
    """Return the entries of all pages of a list.

    Raises:
        UpstreamInvalidError: the list is too long or malformed.

    """
    entries: list[Any] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        result = await page(kind.method, cursor)
        found = result.get(kind.member)
        if not isinstance(found, list):
            raise UpstreamInvalidError(
                f"Its {kind.method} result has no list of {kind.name}; fix the server."
            )
        entries += found
        if len(entries) > MAX_ENTRIES:
            raise UpstreamInvalidError(
                f"The server lists more than {MAX_ENTRIES} {kind.name}; reduce them."
            )
        cursor = result.get("nextCursor")
        if not isinstance(cursor, str):
            return entries
    raise UpstreamInvalidError(
        f"Its {kind.method} has more than {MAX_PAGES} pages; fix the server."
    )


async def _tools(described: Described, page: Page) -> list[Any]:
    return await every_page(TOOLS, page) if described.has(TOOLS.capability) else []


async def _others(kind: Kind, page: Page, failed: dict[str, str]) -> list[Any]:
    """Return the entries of a list other than the tools.

    A failure is recorded, with an empty list.
    """
    try:
        return await every_page(kind, page)
    except UpstreamRefusedError as error:
        if error.data.get("upstream_code") != METHOD_NOT_FOUND:
            failed[kind.method] = shared_reason(error)
    except (UpstreamError, TimeoutError) as error:
        failed[kind.method] = str(error) or "it did not respond in time"
    return []


def _check_annotations(schema: dict[str, Any]) -> None:
    try:
        params_of(schema)
    except AnnotationError as error:
        raise UnreadableError(str(error)) from error


def _deeper_than(value: Any, maximum: int) -> bool:
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        if depth > maximum:
            return True
        level = [
            inner for item in level for inner in (item.values() if isinstance(item, dict) else item)
        ]
    return False
