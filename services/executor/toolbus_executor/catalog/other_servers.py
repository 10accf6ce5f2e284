"""Definitions that concern another server: names of its tools, its URIs, and look-alikes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import msgspec
import re2

from toolbus_common.confusables import skeleton
from toolbus_common.contracts import CatalogEntry, Listing
from toolbus_common.contracts.records.pin_names import NAMED, RESOURCES
from toolbus_common.nats.kv_bucket import Change

NAMES_OTHER = "other-server-tool"
LOOKS_ALIKE = "look-alike-name"
TAKES_URI = "other-server-uri"
RULES = {NAMES_OTHER: 0.55, LOOKS_ALIKE: 0.7, TAKES_URI: 0.7}

_NAME = re2.compile(r"[A-Za-z][A-Za-z0-9]*(?:[_-]+[A-Za-z0-9]+)+")
_SHORTEST = 6
_MOST_NAMES = 5_000  # names in the texts of one server


class _Tool(msgspec.Struct):
    name: str = ""


class _Tools(msgspec.Struct):
    tools: tuple[_Tool, ...] = ()
    resources: tuple[_Tool, ...] = ()


_tools = msgspec.json.Decoder(_Tools).decode


@dataclass(slots=True)
class OtherServers:
    """The names of the tools and the URIs of the resources of all servers, from the catalogue.

    `on_change` is called with each server whose definitions concern tools that appeared.
    """

    on_change: Callable[[str], None] = lambda _server: None
    _names: dict[str, frozenset[str]] = field(default_factory=dict)  # by server
    _mentioned: dict[str, frozenset[str]] = field(default_factory=dict)
    _own: dict[str, frozenset[str]] = field(default_factory=dict)
    _uris: dict[str, dict[str, set[str]]] = field(default_factory=dict)  # by server and shape

    def apply_change(self, change: Change | None) -> None:
        """Apply one change of the catalogue."""
        if change is None:
            return
        server = change.key
        before = self._names.pop(server, frozenset())
        self._uris.pop(server, None)
        if change.value is None:
            return
        try:
            found = _tools(change.value)
        except msgspec.DecodeError:
            return
        self._names[server] = names = frozenset(each.name for each in found.tools)
        self._uris[server] = _by_shape(each.name for each in found.resources)
        if new := names - before:
            shapes = {_shape(each) for each in new}
            for other in [*self._mentioned]:
                if other != server and (
                    new & self._mentioned[other] or shapes & {_shape(x) for x in self._own[other]}
                ):
                    self.on_change(other)

    def with_signals(self, listing: Listing) -> Listing:
        """Return the listing with the signals that concern other servers."""
        server = listing.server
        held = [(each.kind, each) for each in listing.quarantined if each.kind in NAMED]
        entries = held + [(kind, each) for kind in NAMED for each in getattr(listing, kind)]
        self._own[server] = own = frozenset(each.name for each in listing.tools)
        mentioned = {(kind, each.name): _names_in(each) - own for kind, each in entries}
        self._mentioned[server] = frozenset().union(*mentioned.values()) if mentioned else own
        others = [names for name, names in self._names.items() if name != server]
        if not others:
            return listing
        foreign = frozenset().union(*others) - own
        shapes = _by_shape(map(_plain, foreign))

        def signalled(kind: str, each: CatalogEntry) -> CatalogEntry:
            if kind == RESOURCES:
                return self._of_resource(server, each)
            names = mentioned.get((kind, each.name), frozenset()) & foreign
            return _with(each, names, _alike(kind, each.name, shapes))

        found = {
            kind: tuple(signalled(kind, each) for each in getattr(listing, kind))
            for kind in (*NAMED, RESOURCES)
        }
        found["quarantined"] = tuple(signalled(each.kind, each) for each in listing.quarantined)
        return listing.model_copy(update=found)

    def _of_resource(self, server: str, entry: CatalogEntry) -> CatalogEntry:
        """Return a resource, with a signal if its URI equals or resembles another server's.

        On the shared endpoint, a URI that several servers list belongs to the first server by
        name.
        """
        shape, takes, alike = _shape(entry.name), False, False
        for other, uris in self._uris.items():
            if other != server and (known := uris.get(shape)):
                takes = takes or (entry.name in known and server < other)
                alike = alike or _plain(entry.name) not in map(_plain, known)
        return _with(entry, (), alike, takes_uri=takes)


def _by_shape(names: Iterable[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name in names:
        found.setdefault(_shape(name), set()).add(name)
    return found


def _alike(kind: str, name: str, shapes: dict[str, set[str]]) -> bool:
    """Return whether a tool's name looks like that of another server's tool, but is not equal."""
    return kind == "tools" and bool(shapes.get(_shape(name), set()) - {_plain(name)})


def _with(
    entry: CatalogEntry,
    mentions: Iterable[str],
    looks_alike: object,
    *,
    takes_uri: bool = False,
) -> CatalogEntry:
    more = {NAMES_OTHER: RULES[NAMES_OTHER]} if mentions else {}
    more |= {LOOKS_ALIKE: RULES[LOOKS_ALIKE]} if looks_alike else {}
    more |= {TAKES_URI: RULES[TAKES_URI]} if takes_uri else {}
    if not more or more.items() <= entry.signals.items():
        return entry
    return entry.model_copy(update={"signals": dict(sorted((entry.signals | more).items()))})


def _names_in(entry: CatalogEntry) -> frozenset[str]:
    """Return the words of a definition that could be names of tools."""
    description = entry.definition.get("description")
    if not isinstance(description, str):
        return frozenset()
    words: set[str] = set()
    for match in _NAME.finditer(description.encode("utf-8", "replace")):
        first, last = match.span()
        if last - first >= _SHORTEST:
            words.add(match.group().decode())
        if len(words) >= _MOST_NAMES:
            break
    return frozenset(words | {word.partition("__")[2] for word in words if "__" in word})


def _shape(name: str) -> str:
    return skeleton(name)


def _plain(name: str) -> str:
    """Return a name without the differences that are usual between servers."""
    return name.casefold().replace("-", "_").replace(".", "_")
