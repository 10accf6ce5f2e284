"""Every server's tools as they are now, and what each caller's programs may call of them."""

from typing import Any

from toolbus_codemode.catalog.namespace import Shelf
from toolbus_codemode.catalog.search.bm25 import Index, Library
from toolbus_codemode.catalog.search.embeddings import Meaning
from toolbus_common.access.config_snapshot import ConfigProjection
from toolbus_common.access.principal import EffectiveGrants
from toolbus_common.access.tool_names import Names
from toolbus_common.contracts import Listing
from toolbus_common.mcp.builtin_server import BUILT_IN
from toolbus_common.mcp.client_classes import NONE
from toolbus_common.nats.kv_bucket import Change

Offers = dict[str, dict[str, dict[str, Any]]]  # server -> tool -> definition


EVERYTHING = EffectiveGrants((("*",),))


class Catalogue:
    """Shelves and search indexes, kept per bounds until declaration or catalogue change."""

    MOST_KEPT = 256

    def __init__(self, directory: ConfigProjection, meaning: Meaning | None = None) -> None:
        self._directory = directory
        self._listings: dict[str, Listing] = {}
        self._offers: Offers | None = None
        self._names = Names()
        self._shelves: dict[EffectiveGrants, Shelf] = {}
        self._indexes: dict[EffectiveGrants, Index] = {}
        self._library = Library(meaning)
        directory.on_configured.append(self._forget)

    def hear(self, change: Change | None) -> None:
        """Take one change of the catalogue bucket."""
        if change is None or change.key == BUILT_IN:
            return
        if change.value is None:
            self._listings.pop(change.key, None)
        else:
            self._listings[change.key] = Listing.decode(change.value)
        self._forget()

    def shelf(self, bounds: EffectiveGrants) -> Shelf:
        """What may be called within bounds."""
        found = self._shelves.get(bounds)
        if found is None:
            if len(self._shelves) >= self.MOST_KEPT:
                self._shelves.clear()
                self._indexes.clear()
            found = self._shelves[bounds] = Shelf(self._offered(), bounds, self._called)
        return found

    def whole(self) -> Shelf:
        """What anybody may call."""
        return self.shelf(EVERYTHING)

    async def index(self, bounds: EffectiveGrants) -> Index:
        """The same, ready to be searched."""
        found = self._indexes.get(bounds)
        if found is None:
            shelf = self.shelf(bounds)
            found = await self._library.index(shelf.tools())
            if self._shelves.get(bounds) is shelf:  # nothing has changed meanwhile
                self._indexes[bounds] = found
        return found

    def _offered(self) -> Offers:
        """What operators let agents see, by the servers' own names, with their descriptions."""
        if self._offers is None:
            declared = self._directory.now.declaration.servers
            listed = [self._listings[name] for name in declared if name in self._listings]
            self._names = Names(listed, declared)
            self._offers = {listing.server: _seen(listing, self._names) for listing in listed}
        return self._offers

    def _called(self, server: str, tool: str) -> str:
        shown = self._names.shown("tools", server, tool)
        return shown.full if shown is not None else ""

    def _forget(self) -> None:
        self._offers = None
        self._shelves.clear()
        self._indexes.clear()


def _seen(listing: Listing, names: Names) -> dict[str, dict[str, Any]]:
    found = {}
    for offered in listing.tools:
        if offered.shown_to is not None and NONE not in offered.shown_to:
            continue  # a program can be asked nothing
        shown = names.shown("tools", listing.server, offered.name)
        if shown is not None:
            said = {"description": shown.description} if shown.description else {}
            found[offered.name] = {**offered.definition, **said}
    return found
