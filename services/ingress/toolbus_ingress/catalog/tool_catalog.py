"""What a key sees: lists answered from snapshots, encoded once per key and kept until a change."""

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from operator import itemgetter
from time import time
from typing import Any
from urllib.parse import parse_qs

import msgspec

from toolbus_common.access.config_snapshot import ConfigProjection, hash_of
from toolbus_common.access.principal import EffectiveGrants
from toolbus_common.access.session_owner import principal_id_of
from toolbus_common.access.tool_names import NAMED, Names
from toolbus_common.access.tool_patterns import full_name
from toolbus_common.config import Patterns
from toolbus_common.config.servers.timeouts import deadline_of
from toolbus_common.contracts import CatalogEntry, Listing, ProtocolFamily, ServerState
from toolbus_common.mcp.builtin_server import BUILT_IN, SHOWN, Mode
from toolbus_common.mcp.client_classes import NONE
from toolbus_common.mcp.result_uris import Handle, piece_of
from toolbus_common.nats.kv_bucket import Change
from toolbus_ingress.auth.request_context import Caller
from toolbus_ingress.catalog.resource_uris import Shelves
from toolbus_ingress.catalog.server_identity import decides, said_by

log = logging.getLogger(__name__)

DISCOVER = "server/discover"
TTL_MS = 5_000  # how long a client may keep a list; changes reach us within milliseconds

# A method that lists: the field of a listing it shows, and the member of its result.
LISTS = {
    "tools/list": ("tools", "tools"),
    "prompts/list": ("prompts", "prompts"),
    "resources/list": ("resources", "resources"),
    "resources/templates/list": ("templates", "resourceTemplates"),
}


class Catalogue:
    """Everything every server offers, and each key's view of it as ready JSON."""

    MOST_KEPT_BYTES = 64 << 20

    def __init__(self, directory: ConfigProjection) -> None:
        self._directory = directory
        self._listings: dict[str, Listing] = {}
        self._kept: dict[tuple[Any, ...], bytes] = {}
        self._kept_bytes = 0
        self._weights: dict[tuple[Any, ...], int] = {}
        self._depends = False  # whether any list depends on what a client declares
        self._encodings: dict[tuple[Any, ...], tuple[str, msgspec.Raw] | None] = {}
        self._names: Names | None = Names()
        self._told: set[tuple[str, str, str]] = set()
        self.shelves = Shelves()
        self.on_change: list[Callable[[], None]] = []
        directory.on_declared.append(self._declared_anew)

    @property
    def names(self) -> Names:
        """What agents call everything; worked out when asked for, not at every change."""
        if self._names is None:
            declared = self._directory.now.declaration.servers
            wanted = (BUILT_IN, *declared)
            listed = [self._listings[name] for name in wanted if name in self._listings]
            self._names = Names(listed, declared)
            self._tell(self._names)
        return self._names

    def hear(self, change: Change | None) -> None:
        """Take one change of the catalogue bucket."""
        if change is None:
            return
        if change.value is None:
            self._listings.pop(change.key, None)
        else:
            heard, known = Listing.decode(change.value), self._listings.get(change.key)
            self._listings[change.key] = heard
            if known is not None and known.same_but_for_time(heard):
                return  # listed anew, and nothing is new
        self._changed()

    def told(
        self, method: str, caller: Caller, family: ProtocolFamily, client: str = NONE
    ) -> bytes:
        """The result of a list method, and to the stateless family how long it may be kept."""
        body = self.listed(method, caller.bounds, caller.server, family, caller.mode, client)
        ttl_ms = self.ttl_ms(caller.server, method)
        return b'{"ttlMs":%d,%b' % (ttl_ms, body[1:]) if family is ProtocolFamily.MODERN else body

    def ttl_ms(self, server: str, method: str) -> int:
        """What is left of every server's own word, and no more than ours; of one, its own word."""
        own = self._listings.get(server)
        if own is not None and method in own.hints and self.serves(server):
            return _own_ttl(own, method)
        now, least = time(), TTL_MS
        for owner, listing in self._listings.items():
            if server in ("", owner) and self.serves(owner):
                left = listing.left_ms(now)
                least = least if left is None else min(least, left)
        return least

    def discovery_ttl_ms(self, listings: list[Listing], server: str) -> int:
        """How long what is said of servers may be kept: by the word of one on its own endpoint.

        What a stateless server says of itself is asked once for each connection to it.
        """
        if server and listings and DISCOVER in listings[0].hints:
            return self.ttl_ms(server, DISCOVER)
        return 0 if any(listing.family == ProtocolFamily.MODERN for listing in listings) else TTL_MS

    def listed(
        self,
        method: str,
        bounds: EffectiveGrants,
        server: str,
        family: ProtocolFamily,
        mode: Mode = Mode.TOOLS,
        client: str = NONE,
    ) -> bytes:
        """What is within bounds of a list, of all servers (`server` empty) or of one.

        `client` is the class of the client, for servers whose lists depend on it.
        """
        wanted = (bounds, server, family, method, mode, client if self._depends else NONE)
        kept = self._kept.get(wanted)
        if kept is None:
            if self._kept_bytes >= self.MOST_KEPT_BYTES:
                self._forget_views()
            kept = self._kept[wanted] = self._encoded(method, bounds, server, family, mode, client)
            self._kept_bytes += len(kept)
        return kept

    def weight(
        self, method: str, bounds: EffectiveGrants, server: str, family: ProtocolFamily
    ) -> int:
        """Return the bytes of all definitions within bounds, as no mode of seeing tools cuts them.

        Toolbus' own tools are none of them.
        """
        wanted = (bounds, server, family, method)
        found = self._weights.get(wanted)
        if found is None:
            kind, bare = LISTS[method][0], bool(server)
            found = self._weights[wanted] = sum(
                len(ready[1]) + 1
                for owner in self._listings
                if owner != BUILT_IN and self.serves(owner) and server in ("", owner)
                for offered in getattr(self._listings[owner], kind)
                if bounds.cover(full_name(owner, offered.name))
                and (ready := self._ready(kind, owner, offered, family, bare=bare)) is not None
            )
        return found

    def holder(
        self, key_digest: str, restriction: tuple[Patterns, ...]
    ) -> tuple[str, EffectiveGrants] | None:
        """The live key behind a proof, and what it is shown now within what was asked for."""
        found = self._directory.now.principal_for(key_digest, time())
        if found is None:
            return None
        return found.key, found.seen.narrowed(restriction) if restriction else found.seen

    def principal_id(self, key_digest: str) -> str:
        """Whose state at servers the holder of a proof may touch; empty where it is nobody's."""
        found = self._directory.now.principal_for(key_digest, time())
        return principal_id_of(found, key_digest) if found is not None else ""

    def holder_of_token(self, key_digest: str) -> str:
        """Who holds an access token, whichever of theirs it is; empty for a key's proof."""
        bearer = self._directory.bearers.known(hash_of(key_digest))
        return bearer.holder if bearer is not None else ""

    def mode(self, key: str, query: bytes) -> Mode:
        """How a key sees tools: as it is declared to, or as its request asks by `mode=`."""
        said = self._directory.now.principal(key).code_mode
        if said is False:
            return Mode.TOOLS
        if query:
            asked = parse_qs(query.decode("latin-1")).get("mode", [""])[-1]
            with suppress(ValueError):
                return Mode(asked)
        return Mode.CODE if said else Mode.TOOLS

    def serves(self, server: str) -> bool:
        """Whether a server of that name is declared."""
        return self._directory.now.serves(server)

    def deadline(self, server: str, tool: str, now: float) -> float:
        """Return the first deadline of a call, as its server is configured."""
        return deadline_of(self._directory.now.declaration.servers.get(server), tool, now)

    def definition(self, server: str, tool: str) -> dict[str, Any] | None:
        """A tool's definition as its server sent it."""
        listing = self._listings.get(server)
        found = (each.definition for each in listing.tools if each.name == tool) if listing else ()
        return next(iter(found), None)

    def offers(self, kind: str, server: str, name: str) -> bool:
        """Whether a server lists a thing of this kind (`tools`, `prompts`) by that name."""
        listing = self._listings.get(server)
        return listing is not None and any(each.name == name for each in getattr(listing, kind))

    def visible(self, bounds: EffectiveGrants, server: str) -> list[Listing]:
        """The listings of which anything is within bounds, in the order of their names."""
        return [
            listing
            for owner, listing in sorted(self._listings.items())
            if self.serves(owner) and server in ("", owner) and self._sees_any(bounds, listing)
        ]

    def hides(self, bounds: EffectiveGrants, server: str) -> bool:
        """Whether a server offers something and nothing of it is within bounds."""
        listing = self._listings.get(server)
        return listing is not None and not self._sees_any(bounds, listing)

    def sees(self, bounds: EffectiveGrants, server: str, name: str) -> bool:
        """Whether a name or URI of a server is within bounds."""
        return bounds.cover(full_name(server, name))

    def owner_of(self, bounds: EffectiveGrants, server: str, uri: str) -> tuple[str, str] | None:
        """The server of a URI within bounds, and the URI there; None when nobody has it."""
        kept = piece_of(uri)
        if kept is not None:
            return self._owner_of_kept(kept.handle, bounds, server, uri)
        if server:
            return server, uri
        for owner, known in self.shelves.owners(uri):
            if self.serves(owner) and self.sees(bounds, owner, known):
                return owner, known
        return None

    def _owner_of_kept(
        self, handle: Handle, bounds: EffectiveGrants, server: str, uri: str
    ) -> tuple[str, str] | None:
        """Of a kept result: it is within bounds where the tool is that made it."""
        owner = handle.server
        theirs = server in ("", owner) and self.serves(owner)
        return (owner, uri) if theirs and self.sees(bounds, owner, handle.tool) else None

    def _encoded(
        self,
        method: str,
        bounds: EffectiveGrants,
        server: str,
        family: ProtocolFamily,
        mode: Mode,
        client: str,
    ) -> bytes:
        kind, member = LISTS[method]
        shown = [
            ready
            for owner, offered in self._offered(kind, bounds, server, mode)
            if (offered.shown_to is None or client in offered.shown_to)
            and (ready := self._ready(kind, owner, offered, family, bare=bool(server))) is not None
        ]
        if kind in NAMED:  # resources keep their server's order, which may mean something
            shown.sort(key=itemgetter(0))
        result: dict[str, Any] = {member: [raw for _, raw in shown]}
        if family is ProtocolFamily.MODERN:
            # Each key has its own view, so no cache may share it.
            result |= {"resultType": "complete", "cacheScope": "private"}
        return msgspec.json.encode(result)

    def _offered(
        self, kind: str, bounds: EffectiveGrants, server: str, mode: Mode
    ) -> Iterator[tuple[str, CatalogEntry]]:
        own = self._own_tools(bounds, mode) if not server and kind == "tools" else frozenset()
        for owner in sorted(self._listings):
            if not self.serves(owner) or server not in ("", owner):
                continue
            if own and owner != BUILT_IN and self._only_through_programs(owner, mode):
                continue
            for offered in getattr(self._listings[owner], kind):
                name = full_name(owner, offered.name)
                if owner == BUILT_IN:
                    shown = offered.name in own and not bounds.deny(name)
                else:
                    shown = bounds.cover(name)
                if shown:
                    yield owner, offered

    def _own_tools(self, bounds: EffectiveGrants, mode: Mode) -> frozenset[str]:
        """Our own tools: those of the mode, and all where a server's need a program."""
        need = any(
            server.code_mode and self._sees_any(bounds, self._listings[name])
            for name, server in self._directory.now.declaration.servers.items()
            if name in self._listings
        )
        return SHOWN[Mode.CODE] if need else SHOWN[mode]

    def _only_through_programs(self, server: str, mode: Mode) -> bool:
        said = self._directory.now.declaration.servers[server].code_mode
        return said is True or (mode is not Mode.TOOLS and said is None)

    def _ready(
        self, kind: str, owner: str, offered: CatalogEntry, family: ProtocolFamily, *, bare: bool
    ) -> tuple[str, msgspec.Raw] | None:
        """A definition's name and JSON, encoded once for all who see it; None if nobody does."""
        wanted = (kind, owner, offered.name, family, bare)
        if wanted not in self._encodings:
            ready = None
            if kind not in NAMED or self._called(kind, owner, offered, bare=bare):
                shown = self._shown(kind, owner, offered, family, bare=bare)
                ready = str(shown.get("name", "")), msgspec.Raw(msgspec.json.encode(shown))
            self._encodings[wanted] = ready
        return self._encodings[wanted]

    def _shown(
        self, kind: str, owner: str, offered: CatalogEntry, family: ProtocolFamily, *, bare: bool
    ) -> dict[str, Any]:
        """A definition as it was sent, but for what is the gateway's or not of this family."""
        shown = dict(offered.definition)
        if kind in NAMED:
            shown |= self._called(kind, owner, offered, bare=bare)
        elif kind == "resources" and not bare:
            shown["uri"] = self.shelves.shown(owner, offered.name)
        if family is ProtocolFamily.MODERN:
            shown.pop("execution", None)
        elif kind == "tools" and not _is_object(shown.get("outputSchema")):
            shown.pop("outputSchema", None)
        if kind == "tools" and family is ProtocolFamily.LEGACY:
            shown |= _as_task(self._listings[owner], offered.name)
        return shown

    def _called(
        self, kind: str, owner: str, offered: CatalogEntry, *, bare: bool
    ) -> dict[str, str]:
        """The name agents see, and the operator's description; empty when they see nothing."""
        seen = self.names.shown(kind, owner, offered.name)
        name = (seen.bare if bare else seen.full) if seen else ""
        if not seen or not name:
            return {}
        return {"name": name} | ({"description": seen.description} if seen.description else {})

    def _tell(self, names: Names) -> None:
        """Log what is newly not shown for its name."""
        refused = names.dropped | names.crowded
        for kind, server, own in sorted(refused.keys() - self._told):
            about = {"kind": kind, "server": server, "tool": own}
            log.warning("name.refused", extra={**about, "reason": refused[kind, server, own]})
        self._told = set(refused)

    def _sees_any(self, bounds: EffectiveGrants, listing: Listing) -> bool:
        return any(
            self.sees(bounds, listing.server, offered.name)
            for kind, _ in LISTS.values()
            for offered in getattr(listing, kind)
        )

    def _forget_views(self) -> None:
        self._kept.clear()
        self._weights.clear()
        self._kept_bytes = 0

    def _changed(self) -> None:
        self._forget_views()
        self._depends = any(listing.depends for listing in self._listings.values())
        self._encodings.clear()
        self._names = None
        self.shelves = Shelves(self._listings.values())
        for callback in self.on_change:
            callback()

    def _declared_anew(self) -> None:
        self._forget_views()
        self._encodings.clear()
        self._names = None
        for callback in self.on_change:
            callback()


def _own_ttl(listing: Listing, method: str) -> int:
    """How long a list of one server may be kept by its own word.

    Of a list whose changes it tells we know the newest; else what is left since it was read.
    """
    said, kind = listing.hints[method], method.partition("/")[0]
    told = listing.capabilities.get(kind)
    tells = isinstance(told, dict) and told.get("listChanged") is True
    if listing.state is ServerState.READY and (tells or method == DISCOVER):
        return said
    gone = max(0.0, time() - listing.listed_at) * 1000
    return max(0, int(said - gone))


def _as_task(listing: Listing, tool: str) -> dict[str, Any]:
    """What a client with a session is told of running a tool as a task, beside its definition."""
    if listing.handshake is not None:
        support = listing.handshake.tasks.get(tool)
    else:
        support = "optional" if decides(said_by(listing, ProtocolFamily.LEGACY)) else None
    return {"execution": {"taskSupport": support}} if support else {}


def _is_object(schema: Any) -> bool:
    """Whether a schema is of the only kind revisions before 2026-07-28 allow for results."""
    return isinstance(schema, dict) and schema.get("type") == "object"
