"""Catalogue of every server's tools, with the tool namespace and search index of each caller."""

from typing import Any

from toolbus_codemode.catalog.namespace import ToolNamespace
from toolbus_codemode.catalog.search.bm25 import DocumentCache, Index
from toolbus_common.access.config_snapshot import ConfigView
from toolbus_common.access.principal import EffectiveGrants
from toolbus_common.access.tool_names import Names
from toolbus_common.contracts import Listing
from toolbus_common.mcp.builtin_server import BUILT_IN
from toolbus_common.mcp.client_classes import NONE
from toolbus_common.model_api.embeddings import EmbeddingModel
from toolbus_common.nats.kv_bucket import Change

Offers = dict[str, dict[str, dict[str, Any]]]  # server -> tool -> definition


EVERYTHING = EffectiveGrants((("*",),))


class Catalogue:
    """Cache of tool namespaces and search indexes by grants; every change empties the cache."""

    MAX_CACHED = 256

    def __init__(self, directory: ConfigView, meaning: EmbeddingModel | None = None) -> None:
        self._directory = directory
        self._listings: dict[str, Listing] = {}
        self._offers: Offers | None = None
        self._names = Names()
        self._namespaces_by_grants: dict[EffectiveGrants, ToolNamespace] = {}
        self._indexes: dict[EffectiveGrants, Index] = {}
        self._library = DocumentCache(meaning)
        directory.projection.on_configured.append(self._forget)

    def apply_change(self, change: Change | None) -> None:
        """Apply one change of the catalogue bucket."""
        if change is None or change.key == BUILT_IN:
            return
        if change.value is None:
            self._listings.pop(change.key, None)
        else:
            self._listings[change.key] = Listing.decode(change.value)
        self._forget()

    def namespace(self, bounds: EffectiveGrants) -> ToolNamespace:
        """Return the tools that may be called within these grants."""
        found = self._namespaces_by_grants.get(bounds)
        if found is None:
            if len(self._namespaces_by_grants) >= self.MAX_CACHED:
                self._namespaces_by_grants.clear()
                self._indexes.clear()
            found = self._namespaces_by_grants[bounds] = ToolNamespace(
                self._offered(), bounds, self._called
            )
        return found

    def whole(self) -> ToolNamespace:
        """Return the tools of all servers."""
        return self.namespace(EVERYTHING)

    async def index(self, bounds: EffectiveGrants) -> Index:
        """Return the search index of the tools within these grants."""
        found = self._indexes.get(bounds)
        if found is None:
            namespace = self.namespace(bounds)
            found = await self._library.index(namespace.tools())
            if self._namespaces_by_grants.get(bounds) is namespace:  # unchanged meanwhile
                self._indexes[bounds] = found
        return found

    def _offered(self) -> Offers:
        """Return the tools that operators expose, by server name and the server's tool name."""
        if self._offers is None:
            declared = self._directory.now.configuration.servers
            listed = [self._listings[name] for name in declared if name in self._listings]
            self._names = Names(listed, declared)
            self._offers = {listing.server: _seen(listing, self._names) for listing in listed}
        return self._offers

    def _called(self, server: str, tool: str) -> str:
        shown = self._names.shown("tools", server, tool)
        return shown.full if shown is not None else ""

    def _forget(self) -> None:
        self._offers = None
        self._namespaces_by_grants.clear()
        self._indexes.clear()


def _seen(listing: Listing, names: Names) -> dict[str, dict[str, Any]]:
    found = {}
    for offered in listing.tools:
        if offered.shown_to is not None and NONE not in offered.shown_to:
            continue  # it may request input, which a program cannot provide
        shown = names.shown("tools", listing.server, offered.name)
        if shown is not None:
            override = {"description": shown.description} if shown.description else {}
            found[offered.name] = {**offered.definition, **override}
    return found
