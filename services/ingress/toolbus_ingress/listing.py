"""What a key sees: lists answered from snapshots, encoded once per key and kept until a change."""

from typing import Any

import msgspec

from toolbus_common.bus import Change
from toolbus_common.contracts import Era, Listing
from toolbus_common.declared import Key
from toolbus_common.grants import full_name, granted
from toolbus_common.snapshot import Directory, Snapshot

TTL_MS = 5_000  # how long a client may keep a list; changes reach us within milliseconds


class Catalogue:
    """The tools of every server, and each key's view of them as ready JSON."""

    MOST_KEPT = 2_000

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._listings: dict[str, Listing] = {}
        self._kept: dict[tuple[str, str, Era], bytes] = {}
        directory.on_change.append(self._forget)

    def hear(self, change: Change | None) -> None:
        """Take one change of the catalogue bucket."""
        if change is None:
            return
        if change.value is None:
            self._listings.pop(change.key, None)
        else:
            self._listings[change.key] = Listing.decode(change.value)
        self._kept.clear()

    def tools(self, name: str, key: Key, server: str, era: Era) -> bytes:
        """The result of tools/list, for all servers (`server` empty) or for one."""
        wanted = (name, server, era)
        kept = self._kept.get(wanted)
        if kept is None:
            if len(self._kept) >= self.MOST_KEPT:
                self._kept.clear()
            kept = self._kept[wanted] = _encoded(self._visible(key, server), era)
        return kept

    def serves(self, server: str) -> bool:
        """Whether a server of that name is declared."""
        return server in self._directory.now.declaration.servers

    def _visible(self, key: Key, server: str) -> list[dict[str, Any]]:
        declared = self._directory.now.declaration
        team = declared.teams.get(key.team)
        bounds = [key.tools] + ([team.tools] if team and team.tools is not None else [])
        shown = []
        for owner in sorted(self._listings):
            if owner not in declared.servers or (server and owner != server):
                continue
            for tool in self._listings[owner].tools:
                name = full_name(owner, tool.name)
                if all(granted(patterns, name) for patterns in bounds):
                    shown.append({**tool.definition, "name": tool.name if server else name})
        return sorted(shown, key=lambda definition: str(definition["name"]))

    def _forget(self, _snapshot: Snapshot) -> None:
        self._kept.clear()


def _encoded(tools: list[dict[str, Any]], era: Era) -> bytes:
    result: dict[str, Any] = {"tools": tools}
    if era is Era.MODERN:
        # Each key has its own view, so no cache may share it.
        result |= {"resultType": "complete", "ttlMs": TTL_MS, "cacheScope": "private"}
    return msgspec.json.encode(result)
