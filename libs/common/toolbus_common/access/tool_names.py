"""Tool names for clients: `server__tool`, unique and valid in all clients."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2s

from toolbus_common.access.tool_patterns import full_name, split_name
from toolbus_common.config import Server, ToolView
from toolbus_common.confusables import skeleton
from toolbus_common.contracts import Listing
from toolbus_common.mcp.builtin_server import BUILT_IN

LONGEST = 64  # characters: several model APIs accept no more
NAMED = ("tools", "prompts")  # kinds of a listing that have names; each has its own namespace
LONGEST_OWN = 200  # characters of a name that a server gives a tool or prompt
_PREFIX = LONGEST - 9
_PREFIX_OF_UNSAFE = LONGEST - 13
_SAFE = re.compile(r"[A-Za-z0-9_-]*")
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_INVISIBLE = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
_JOINERS = "\u200c\u200d"  # used by some scripts and emoji
_UNCHANGED = ToolView()


@dataclass(frozen=True, slots=True)
class Shown:
    """One tool or prompt: its server, its name at the server, and its names for clients."""

    server: str
    own: str
    bare: str  # its name at the endpoint of its server
    full: str  # its name at the endpoint of all servers; empty on a name conflict
    description: str = ""  # replaces the server's description
    aliased: bool = False


class Names:
    """All names for clients and the tools they refer to. The result is the same in every replica.

    `dropped` contains the reason why a tool or prompt is hidden, by kind, server and own name.
    `crowded` contains the reason why it is available only at the endpoint of its own server.
    """

    def __init__(
        self, listings: Iterable[Listing] = (), servers: Mapping[str, Server] | None = None
    ) -> None:
        self.dropped: dict[tuple[str, str, str], str] = {}
        self.crowded: dict[tuple[str, str, str], str] = {}
        self._offered: dict[tuple[str, str, str], Shown] = {}
        self._bare: dict[tuple[str, str, str], str] = {}
        self._full: dict[tuple[str, str], tuple[str, str]] = {}
        ordered = sorted(listings, key=lambda listing: listing.server)
        for kind in NAMED:
            self._add(kind, ordered, servers or {})

    def shown(self, kind: str, server: str, own: str) -> Shown | None:
        """Return the names of a tool or prompt for clients; None if it is hidden."""
        return self._offered.get((kind, server, own))

    def meant(self, name: str, kind: str = "tools", at: str = "") -> tuple[str, str]:
        """Return the server and the tool's own name for a name that a client sent.

        `at` is the server of the endpoint that received the name, or empty for the shared endpoint.
        The returned server is empty if the name refers to no tool. An unknown name is split at the
        separator: policy then denies the call, and the denial is recorded.
        """
        if at:
            found = self._bare.get((kind, at, name))
            return self._unless_renamed(kind, at, name, name) if found is None else (at, found)
        return self._full.get((kind, name)) or self._unless_renamed(kind, *split_name(name), name)

    def _unless_renamed(self, kind: str, server: str, own: str, name: str) -> tuple[str, str]:
        key = (kind, server, own)
        shown = self._offered.get(key)
        if shown is not None and shown.full and not shown.aliased:
            return server, own  # the original full name of an entry with a shortened name
        return ("", name) if shown is not None or key in self.dropped else (server, own)

    def _add(self, kind: str, listings: list[Listing], servers: Mapping[str, Server]) -> None:
        distinct: list[Shown] = []
        for listing in listings:
            server = servers.get(listing.server)
            views = server.tools if server is not None and kind == "tools" else {}
            distinct += self._distinct(
                kind, _each(kind, listing, views), self.dropped, lambda each: each.bare
            )
        shared = set(self._distinct(kind, distinct, self.crowded, lambda each: each.full))
        for each in distinct:
            seen = each if each in shared else replace(each, full="")
            self._offered[kind, each.server, each.own] = seen
            self._bare[kind, each.server, each.bare] = each.own
            if seen.full:
                self._full[kind, seen.full] = (each.server, each.own)

    @staticmethod
    def _distinct(
        kind: str,
        candidates: Iterable[Shown],
        rejected: dict[tuple[str, str, str], str],
        name: Callable[[Shown], str],
    ) -> list[Shown]:
        """Return the candidates without those that look like an earlier one; aliases come first."""
        first: dict[str, Shown] = {}
        for each in sorted(candidates, key=lambda each: (not each.aliased, name(each), each.own)):
            before = first.setdefault(skeleton(name(each)), each)
            if before is not each:
                key = (kind, each.server, each.own)
                rejected[key] = f"its name {name(each)} looks like {name(before)}"
        return list(first.values())


def is_own_name(name: str) -> bool:
    """Return whether a tool or prompt name is valid: visible characters only, and not too long."""
    if name.isascii():
        return name.isprintable() and bool(name.strip()) and len(name) <= LONGEST_OWN
    visible = all(each in _JOINERS or unicodedata.category(each) not in _INVISIBLE for each in name)
    return visible and len(name) <= LONGEST_OWN


def shortened(full: str) -> str:
    """Return a full name that all clients accept: `[A-Za-z0-9_-]{1,64}`.

    If the name is too long or contains other characters, each sequence of other characters is
    replaced with `_`. The name is then truncated, and a hash of the original name is appended. The
    result is the same in every replica.
    """
    if not _SAFE.fullmatch(full):
        prefix = _UNSAFE.sub("_", full)[:_PREFIX_OF_UNSAFE]
        return f"{prefix}_{blake2s(full.encode(), digest_size=6).hexdigest()}"
    if len(full) <= LONGEST:
        return full
    return f"{full[:_PREFIX]}_{blake2s(full.encode(), digest_size=4).hexdigest()}"


def _each(kind: str, listing: Listing, views: Mapping[str, ToolView]) -> Iterator[Shown]:
    own = listing.server == BUILT_IN  # the built-in tools have fixed names
    for offered in getattr(listing, kind):
        view = views.get(offered.name, _UNCHANGED)
        if not view.hidden:
            bare = view.alias or offered.name
            yield Shown(
                listing.server,
                offered.name,
                bare,
                bare if own else shortened(full_name(listing.server, bare)),
                view.description,
                aliased=own or bool(view.alias),
            )
