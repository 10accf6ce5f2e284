"""The catalogue: lists of each key's tools, encoded once and cached until a change."""

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from operator import itemgetter
from time import time
from typing import Any
from urllib.parse import parse_qs

import msgspec

from toolbus_common.access.config_snapshot import ConfigView, hash_of
from toolbus_common.access.principal import EffectiveGrants
from toolbus_common.access.session_owner import principal_id_of
from toolbus_common.access.tool_names import NAMED, Names
from toolbus_common.access.tool_patterns import full_name
from toolbus_common.config import Patterns
from toolbus_common.config.servers.timeouts import deadline_of
from toolbus_common.contracts import CatalogEntry, Listing, ProtocolFamily, ServerState
from toolbus_common.mcp.builtin_server import BUILT_IN, SHOWN, Mode
from toolbus_common.mcp.client_classes import NONE
from toolbus_common.mcp.result_uris import Handle, parse_result_uri
from toolbus_common.nats.kv_bucket import Change
from toolbus_ingress.auth.request_context import Caller
from toolbus_ingress.catalog.resource_uris import ResourceIndex
from toolbus_ingress.catalog.server_identity import decides_tasks, server_identity
from toolbus_ingress.catalog.view_cache import ViewCache

log = logging.getLogger(__name__)

DISCOVER = "server/discover"
TTL_MS = 5_000  # how long a client may cache a list; changes arrive within milliseconds

# By list method: the field of a listing, and the member of the result.
LISTS = {
    "tools/list": ("tools", "tools"),
    "prompts/list": ("prompts", "prompts"),
    "resources/list": ("resources", "resources"),
    "resources/templates/list": ("templates", "resourceTemplates"),
}


class Catalogue:
    """The tools, prompts and resources of every server, and each key's view of them as JSON."""

    def __init__(self, directory: ConfigView) -> None:
        self._directory = directory
        self._listings: dict[str, Listing] = {}
        self._bodies = ViewCache[bytes]()
        self._sizes = ViewCache[int]()
        self._depends_on_client = False  # whether any list depends on the client's capabilities
        self._encodings: dict[tuple[Any, ...], tuple[str, msgspec.Raw] | None] = {}
        self._names: Names | None = Names()
        self._logged: set[tuple[str, str, str]] = set()
        self.resource_index = ResourceIndex()
        self.on_change: list[Callable[[], None]] = []
        directory.projection.on_configured.append(self._on_configuration)

    @property
    def names(self) -> Names:
        """The names that agents see; computed on first use after a change."""
        if self._names is None:
            configured = self._directory.now.configuration.servers
            servers = (BUILT_IN, *configured)
            listings = [self._listings[name] for name in servers if name in self._listings]
            self._names = Names(listings, configured)
            self._log_hidden_names(self._names)
        return self._names

    def apply(self, change: Change | None) -> None:
        """Apply one change of the catalogue bucket."""
        if change is None:
            return
        if change.value is None:
            self._listings.pop(change.key, None)
        else:
            listing, known = Listing.decode(change.value), self._listings.get(change.key)
            self._listings[change.key] = listing
            if known is not None and known.equals_ignoring_time(listing):
                return  # listed again without a change
        self._changed()

    def list_result(
        self, method: str, caller: Caller, family: ProtocolFamily, client: str = NONE
    ) -> bytes:
        """Return the result of a list method. For stateless callers, the result has a `ttlMs`."""
        body = self.list_body(method, caller.grants, caller.server, family, caller.mode, client)
        ttl_ms = self.ttl_ms(caller.server, method)
        return b'{"ttlMs":%d,%b' % (ttl_ms, body[1:]) if family is ProtocolFamily.MODERN else body

    def ttl_ms(self, server: str, method: str) -> int:
        """Return how long a client may cache a list, in milliseconds.

        On the endpoint of one server, the result is the server's own hint. On the shared endpoint,
        it is the shortest remaining lifetime of any server's hint, at most `TTL_MS`.
        """
        own = self._listings.get(server)
        if own is not None and method in own.hints and self.serves(server):
            return _own_ttl_ms(own, method)
        now, least = time(), TTL_MS
        for owner, listing in self._listings.items():
            if server in ("", owner) and self.serves(owner):
                left = listing.remaining_ms(now)
                least = least if left is None else min(least, left)
        return least

    def discovery_ttl_ms(self, listings: list[Listing], server: str) -> int:
        """Return how long a client may cache `server/discover`, in milliseconds.

        On the endpoint of one stateless server without a hint, the result is 0.
        """
        if server and listings and DISCOVER in listings[0].hints:
            return self.ttl_ms(server, DISCOVER)
        return 0 if any(listing.family == ProtocolFamily.MODERN for listing in listings) else TTL_MS

    def list_body(
        self,
        method: str,
        grants: EffectiveGrants,
        server: str,
        family: ProtocolFamily,
        mode: Mode = Mode.TOOLS,
        client: str = NONE,
    ) -> bytes:
        """Return the result of a list method within grants. `server` is empty for all servers.

        `client` is the class of the client, for servers whose lists depend on it.
        """
        key = (grants, server, family, method, mode, client if self._depends_on_client else NONE)
        body = self._bodies.get(key)
        if body is None:
            body = self._encoded(method, grants, server, family, mode, client)
            self._bodies.put(key, body, len(body))
        return body

    def definitions_size(
        self, method: str, grants: EffectiveGrants, server: str, family: ProtocolFamily
    ) -> int:
        """Return the size in bytes of all definitions within grants, without built-in tools."""
        key = (grants, server, family, method)
        found = self._sizes.get(key)
        if found is None:
            kind, bare = LISTS[method][0], bool(server)
            found = sum(
                len(ready[1]) + 1
                for owner in self._listings
                if owner != BUILT_IN and self.serves(owner) and server in ("", owner)
                for offered in getattr(self._listings[owner], kind)
                if grants.cover(full_name(owner, offered.name))
                and (ready := self._ready(kind, owner, offered, family, bare=bare)) is not None
            )
            self._sizes.put(key, found)
        return found

    def holder(
        self, key_digest: str, restrictions: tuple[Patterns, ...]
    ) -> tuple[str, EffectiveGrants] | None:
        """Return the name and restricted grants of a key by its digest; None if it is not valid."""
        found = self._directory.now.principal_for(key_digest, time())
        if found is None:
            return None
        return found.key, found.seen.narrowed(restrictions) if restrictions else found.seen

    def principal_id(self, key_digest: str) -> str:
        """Return the principal that owns a key's state at servers; empty if the key is invalid."""
        found = self._directory.now.principal_for(key_digest, time())
        return principal_id_of(found, key_digest) if found is not None else ""

    def holder_of_token(self, key_digest: str) -> str:
        """Return the holder of an access token; empty for the digest of a key."""
        bearer = self._directory.bearers.known(hash_of(key_digest))
        return bearer.holder if bearer is not None else ""

    def mode(self, key: str, query: bytes) -> Mode:
        """Return the mode of listing tools: the request's `mode=`, or the key's configured mode."""
        configured = self._directory.now.principal(key).code_mode
        if configured is False:
            return Mode.TOOLS
        if query:
            requested = parse_qs(query.decode("latin-1")).get("mode", [""])[-1]
            with suppress(ValueError):
                return Mode(requested)
        return Mode.CODE if configured else Mode.TOOLS

    def serves(self, server: str) -> bool:
        """Return whether a server of that name is configured."""
        return self._directory.now.serves(server)

    def deadline(self, server: str, tool: str, now: float) -> float:
        """Return the initial deadline of a call, from the configuration of its server."""
        return deadline_of(self._directory.now.configuration.servers.get(server), tool, now)

    def definition(self, server: str, tool: str) -> dict[str, Any] | None:
        """Return a tool's definition as its server sent it; None if the tool is not listed."""
        listing = self._listings.get(server)
        found = (each.definition for each in listing.tools if each.name == tool) if listing else ()
        return next(iter(found), None)

    def offers(self, kind: str, server: str, name: str) -> bool:
        """Return whether a server lists an entry of this kind (`tools`, `prompts`) by that name."""
        listing = self._listings.get(server)
        return listing is not None and any(each.name == name for each in getattr(listing, kind))

    def visible(self, grants: EffectiveGrants, server: str) -> list[Listing]:
        """Return the listings with at least one entry within grants, sorted by server."""
        return [
            listing
            for owner, listing in sorted(self._listings.items())
            if self.serves(owner) and server in ("", owner) and self._sees_any(grants, listing)
        ]

    def hides(self, grants: EffectiveGrants, server: str) -> bool:
        """Return whether a server has entries, but no entry within grants."""
        listing = self._listings.get(server)
        return listing is not None and not self._sees_any(grants, listing)

    def sees(self, grants: EffectiveGrants, server: str, name: str) -> bool:
        """Return whether a name or URI of a server is within grants."""
        return grants.cover(full_name(server, name))

    def owner_of(self, grants: EffectiveGrants, server: str, uri: str) -> tuple[str, str] | None:
        """Return the server that has a URI within grants, and the server's own URI; else None."""
        piece = parse_result_uri(uri)
        if piece is not None:
            return self._owner_of_result(piece.handle, grants, server, uri)
        if server:
            return server, uri
        for owner, known in self.resource_index.owners(uri):
            if self.serves(owner) and self.sees(grants, owner, known):
                return owner, known
        return None

    def _owner_of_result(
        self, handle: Handle, grants: EffectiveGrants, server: str, uri: str
    ) -> tuple[str, str] | None:
        """Return the server and URI of a stored result, if the caller sees the result's tool."""
        owner = handle.server
        theirs = server in ("", owner) and self.serves(owner)
        return (owner, uri) if theirs and self.sees(grants, owner, handle.tool) else None

    def _encoded(
        self,
        method: str,
        grants: EffectiveGrants,
        server: str,
        family: ProtocolFamily,
        mode: Mode,
        client: str,
    ) -> bytes:
        kind, member = LISTS[method]
        shown = [
            ready
            for owner, offered in self._offered(kind, grants, server, mode)
            if (offered.shown_to is None or client in offered.shown_to)
            and (ready := self._ready(kind, owner, offered, family, bare=bool(server))) is not None
        ]
        if kind in NAMED:  # resources keep their server's order, which may be deliberate
            shown.sort(key=itemgetter(0))
        result: dict[str, Any] = {member: [raw for _, raw in shown]}
        if family is ProtocolFamily.MODERN:
            # Each key has its own view, so no shared cache may store it.
            result |= {"resultType": "complete", "cacheScope": "private"}
        return msgspec.json.encode(result)

    def _offered(
        self, kind: str, grants: EffectiveGrants, server: str, mode: Mode
    ) -> Iterator[tuple[str, CatalogEntry]]:
        own = self._builtin_tools(grants, mode) if not server and kind == "tools" else frozenset()
        for owner in sorted(self._listings):
            if not self.serves(owner) or server not in ("", owner):
                continue
            if own and owner != BUILT_IN and self._only_through_programs(owner, mode):
                continue
            for offered in getattr(self._listings[owner], kind):
                name = full_name(owner, offered.name)
                if owner == BUILT_IN:
                    shown = offered.name in own and not grants.deny(name)
                else:
                    shown = grants.cover(name)
                if shown:
                    yield owner, offered

    def _builtin_tools(self, grants: EffectiveGrants, mode: Mode) -> frozenset[str]:
        """Return the built-in tools of `mode`, or of code mode if a visible server requires it."""
        need = any(
            server.code_mode and self._sees_any(grants, self._listings[name])
            for name, server in self._directory.now.configuration.servers.items()
            if name in self._listings
        )
        return SHOWN[Mode.CODE] if need else SHOWN[mode]

    def _only_through_programs(self, server: str, mode: Mode) -> bool:
        configured = self._directory.now.configuration.servers[server].code_mode
        return configured is True or (mode is not Mode.TOOLS and configured is None)

    def _ready(
        self, kind: str, owner: str, offered: CatalogEntry, family: ProtocolFamily, *, bare: bool
    ) -> tuple[str, msgspec.Raw] | None:
        """Return an entry's name and JSON, encoded once for all callers; None if it is hidden."""
        key = (kind, owner, offered.name, family, bare)
        if key not in self._encodings:
            ready = None
            if kind not in NAMED or self._names_shown(kind, owner, offered, bare=bare):
                shown = self._shown(kind, owner, offered, family, bare=bare)
                ready = str(shown.get("name", "")), msgspec.Raw(msgspec.json.encode(shown))
            self._encodings[key] = ready
        return self._encodings[key]

    def _shown(
        self, kind: str, owner: str, offered: CatalogEntry, family: ProtocolFamily, *, bare: bool
    ) -> dict[str, Any]:
        """Return a definition as its server sent it, adapted to the endpoint and family."""
        shown = dict(offered.definition)
        if kind in NAMED:
            shown |= self._names_shown(kind, owner, offered, bare=bare)
        elif kind == "resources" and not bare:
            shown["uri"] = self.resource_index.shown(owner, offered.name)
        if family is ProtocolFamily.MODERN:
            shown.pop("execution", None)
        elif kind == "tools" and not _is_object(shown.get("outputSchema")):
            shown.pop("outputSchema", None)
        if kind == "tools" and family is ProtocolFamily.LEGACY:
            shown |= _task_support(self._listings[owner], offered.name)
        return shown

    def _names_shown(
        self, kind: str, owner: str, offered: CatalogEntry, *, bare: bool
    ) -> dict[str, str]:
        """Return the name that agents see and a configured description; empty if hidden."""
        seen = self.names.shown(kind, owner, offered.name)
        name = (seen.bare if bare else seen.full) if seen else ""
        if not seen or not name:
            return {}
        return {"name": name} | ({"description": seen.description} if seen.description else {})

    def _log_hidden_names(self, names: Names) -> None:
        """Log entries that became hidden because of their names."""
        hidden = names.dropped | names.crowded
        for kind, server, own in sorted(hidden.keys() - self._logged):
            fields = {"kind": kind, "server": server, "tool": own}
            log.warning("name.rejected", extra={**fields, "reason": hidden[kind, server, own]})
        self._logged = set(hidden)

    def _sees_any(self, grants: EffectiveGrants, listing: Listing) -> bool:
        return any(
            self.sees(grants, listing.server, offered.name)
            for kind, _ in LISTS.values()
            for offered in getattr(listing, kind)
        )

    def _clear_views(self) -> None:
        self._bodies.clear()
        self._sizes.clear()

    def _changed(self) -> None:
        self._depends_on_client = any(listing.depends for listing in self._listings.values())
        self.resource_index = ResourceIndex(self._listings.values())
        self._on_configuration()

    def _on_configuration(self) -> None:
        self._clear_views()
        self._encodings.clear()
        self._names = None
        for callback in self.on_change:
            callback()


def _own_ttl_ms(listing: Listing, method: str) -> int:
    """Return how long a server's list may be cached by the server's hint, in milliseconds.

    If the server announces changes of the list, the list is current and has the whole lifetime.
    Otherwise it has the lifetime that remains since it was read.
    """
    hint, kind = listing.hints[method], method.partition("/")[0]
    capability = listing.capabilities.get(kind)
    notifies = isinstance(capability, dict) and capability.get("listChanged") is True
    if listing.state is ServerState.READY and (notifies or method == DISCOVER):
        return hint
    elapsed_ms = max(0.0, time() - listing.listed_at) * 1000
    return max(0, int(hint - elapsed_ms))


def _task_support(listing: Listing, tool: str) -> dict[str, Any]:
    """Return the member `execution` of a tool for session-based clients; empty without tasks."""
    if listing.handshake is not None:
        support = listing.handshake.tasks.get(tool)
    else:
        identity = server_identity(listing, ProtocolFamily.LEGACY)
        support = "optional" if decides_tasks(identity) else None
    return {"execution": {"taskSupport": support}} if support else {}


def _is_object(schema: Any) -> bool:
    """Return whether a schema describes an object, as revisions before 2026-07-28 require."""
    return isinstance(schema, dict) and schema.get("type") == "object"
