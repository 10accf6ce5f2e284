"""Names agents see and send: `server__tool`, in a form every client takes, none like another."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2s

from toolbus_common.access.confusables import skeleton
from toolbus_common.access.tool_patterns import full_name, split_name
from toolbus_common.config import Server, ToolView
from toolbus_common.contracts import Listing
from toolbus_common.mcp.builtin_server import BUILT_IN

LONGEST = 64  # characters: several model APIs take no more
NAMED = ("tools", "prompts")  # the kinds of a listing that go by a name; each has its own space
LONGEST_OWN = 200  # characters of a name that a server gives a tool or prompt
_KEPT = LONGEST - 9
_KEPT_OF_UNSAFE = LONGEST - 13
_SAFE = re.compile(r"[A-Za-z0-9_-]*")
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_UNSEEN = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
_JOINERS = "\u200c\u200d"  # that some scripts and emoji are written with
_AS_IT_IS = ToolView()


@dataclass(frozen=True, slots=True)
class Shown:
    """One tool or prompt: its server, its name there, and how agents see it."""

    server: str
    own: str
    bare: str  # its name at the endpoint of its server
    full: str  # its name at the endpoint of all servers; empty when another took it
    description: str = ""  # instead of its own
    aliased: bool = False


class Names:
    """Every shown name and what it means: the same in every replica.

    `dropped` says why a tool or prompt, by kind, server and own name, is shown nowhere, or
    (`crowded`) only at the endpoint of its own server.
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
            self._take(kind, ordered, servers or {})

    def shown(self, kind: str, server: str, own: str) -> Shown | None:
        """How agents see it; None when they do not."""
        return self._offered.get((kind, server, own))

    def meant(self, name: str, kind: str = "tools", at: str = "") -> tuple[str, str]:
        """The server and the name there, for a name sent to the endpoint of one server or of all.

        The server is empty where the name cannot mean anything. A name nobody lists is read as
        it stands: whoever decides refuses it, and it is recorded.
        """
        if at:
            found = self._bare.get((kind, at, name))
            return self._unless_renamed(kind, at, name, name) if found is None else (at, found)
        return self._full.get((kind, name)) or self._unless_renamed(kind, *split_name(name), name)

    def _unless_renamed(self, kind: str, server: str, own: str, name: str) -> tuple[str, str]:
        place = (kind, server, own)
        shown = self._offered.get(place)
        if shown is not None and shown.full and not shown.aliased:
            return server, own  # the whole name of one that is shown in a safe form
        return ("", name) if shown is not None or place in self.dropped else (server, own)

    def _take(self, kind: str, listings: list[Listing], servers: Mapping[str, Server]) -> None:
        kept: list[Shown] = []
        for listing in listings:
            declared = servers.get(listing.server)
            views = declared.tools if declared is not None and kind == "tools" else {}
            kept += self._distinct(
                kind, _each(kind, listing, views), self.dropped, lambda each: each.bare
            )
        self._place(kind, kept)

    def _place(self, kind: str, kept: list[Shown]) -> None:
        shared = set(self._distinct(kind, kept, self.crowded, lambda each: each.full))
        for each in kept:
            seen = each if each in shared else replace(each, full="")
            self._offered[kind, each.server, each.own] = seen
            self._bare[kind, each.server, each.bare] = each.own
            if seen.full:
                self._full[kind, seen.full] = (each.server, each.own)

    @staticmethod
    def _distinct(
        kind: str,
        candidates: Iterable[Shown],
        refused: dict[tuple[str, str, str], str],
        name: Callable[[Shown], str],
    ) -> list[Shown]:
        """Those no earlier one looks like. What operators named themselves comes first."""
        first: dict[str, Shown] = {}
        for each in sorted(candidates, key=lambda each: (not each.aliased, name(each), each.own)):
            before = first.setdefault(skeleton(name(each)), each)
            if before is not each:
                place = (kind, each.server, each.own)
                refused[place] = f"its name {name(each)} looks like {name(before)}"
        return list(first.values())


def is_own_name(name: str) -> bool:
    """Return whether a server may list a tool or prompt under this name: any that one can see."""
    if name.isascii():
        return name.isprintable() and bool(name.strip()) and len(name) <= LONGEST_OWN
    seen = all(each in _JOINERS or unicodedata.category(each) not in _UNSEEN for each in name)
    return seen and len(name) <= LONGEST_OWN


def shortened(full: str) -> str:
    """Return a full name within what clients take: `[A-Za-z0-9_-]{1,64}`.

    One that is too long or has other characters is cut, each run of those becomes `_`, and it ends
    with a hash of the whole: the same at every start, and in every replica.
    """
    if not _SAFE.fullmatch(full):
        kept = _UNSAFE.sub("_", full)[:_KEPT_OF_UNSAFE]
        return f"{kept}_{blake2s(full.encode(), digest_size=6).hexdigest()}"
    if len(full) <= LONGEST:
        return full
    return f"{full[:_KEPT]}_{blake2s(full.encode(), digest_size=4).hexdigest()}"


def _each(kind: str, listing: Listing, views: Mapping[str, ToolView]) -> Iterator[Shown]:
    own = listing.server == BUILT_IN  # our own tools go by names that agents know already
    for offered in getattr(listing, kind):
        view = views.get(offered.name, _AS_IT_IS)
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
