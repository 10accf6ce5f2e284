"""Index of the cached responses of all replicas, in memory (no I/O)."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from toolbus_common.nats.kv_bucket import Change
from toolbus_executor.providers.cache.records import (
    ENTRY,
    PURGE,
    Entry,
    Purge,
    decode_entry,
    decode_purge,
)

MAX_EXPIRED = 100  # expired entries that are removed at once
Group = tuple[str, str]  # customer and provider


@dataclass(slots=True)
class _Totals:
    """The entries of one customer at one provider, the oldest first."""

    names: OrderedDict[str, None] = field(default_factory=OrderedDict)
    bytes: int = 0


class Index:
    """The descriptions of all entries, and the purges. It follows the bucket."""

    def __init__(self) -> None:
        self.revision = 0  # of the newest change that was applied
        self._entries: dict[str, Entry] = {}
        self._groups: dict[Group, _Totals] = {}
        self._contexts: dict[bytes, dict[str, None]] = {}
        self._purges: dict[str, tuple[int, Purge]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def items(self) -> Iterator[tuple[str, Entry]]:
        """Return all entries with their names."""
        return iter(self._entries.items())

    def get(self, name: str) -> Entry | None:
        """Return an entry; None if it does not exist."""
        return self._entries.get(name)

    def similar(self, context: bytes) -> tuple[str, ...]:
        """Return the names of the entries with this context."""
        return tuple(self._contexts.get(context, ()))

    def totals(self) -> dict[Group, tuple[int, int]]:
        """Return the number and the bytes of the entries of each group."""
        return {group: (len(each.names), each.bytes) for group, each in self._groups.items()}

    def excess(
        self, group: Group, size: int, entries: int, max_bytes: int, oldest: float = 0.0
    ) -> list[str]:
        """Return the entries of a group to remove before one of `size` bytes is added.

        These are the entries of before `oldest`, and the oldest ones above a limit.
        """
        totals = self._groups.get(group)
        found: list[str] = []
        if totals is None:
            return []
        count, stored = len(totals.names) + 1, totals.bytes + size
        for name in totals.names:
            if (
                count <= entries
                and stored <= max_bytes
                and (self._entries[name].at >= oldest or len(found) >= MAX_EXPIRED)
            ):
                break
            found.append(name)
            count, stored = count - 1, stored - self._entries[name].size
        return found

    def apply(self, change: Change) -> None:
        """Apply one change of the bucket. An unreadable entry is ignored."""
        self.revision = change.revision
        if change.key.startswith(PURGE):
            self._apply_purge(change)
            return
        if not change.key.startswith(ENTRY):
            return
        self.drop(change.key)
        if change.value is None:
            return
        try:
            self.add(change.key, decode_entry(change.value))
        except msgspec.MsgspecError:
            return

    def is_purged(self, name: str, entry: Entry) -> bool:
        """Return whether a purge selects an entry whose request began before it."""
        purges = self._purges.values()
        return any(at > entry.seen and each.selects(name, entry) for at, each in purges)

    def add(self, name: str, entry: Entry) -> None:
        """Add an entry, unless a purge that the writer did not know selects it."""
        self.drop(name)
        if self.is_purged(name, entry):
            return
        self._entries[name] = entry
        totals = self._groups.setdefault((entry.customer, entry.provider), _Totals())
        totals.names[name] = None
        totals.bytes += entry.size
        if entry.context:
            self._contexts.setdefault(entry.context, {})[name] = None

    def drop(self, name: str) -> None:
        """Remove an entry if it exists."""
        entry = self._entries.pop(name, None)
        if entry is None:
            return
        group = entry.customer, entry.provider
        totals = self._groups[group]
        del totals.names[name]
        totals.bytes -= entry.size
        if not totals.names:
            del self._groups[group]
        if entry.context:
            names = self._contexts[entry.context]
            del names[name]
            if not names:
                del self._contexts[entry.context]

    def select(self, purge: Purge) -> list[str]:
        """Return the names of the entries that a purge selects."""
        return [name for name, entry in self._entries.items() if purge.selects(name, entry)]

    def clear(self) -> None:
        """Remove everything, before the bucket is read again."""
        self.__init__()  # type: ignore[misc]

    def _apply_purge(self, change: Change) -> None:
        if change.value is None:
            self._purges.pop(change.key, None)
            return
        try:
            purge = decode_purge(change.value)
        except msgspec.MsgspecError:
            return
        self._purges[change.key] = change.revision, purge
        for name in self.select(purge):
            if self._entries[name].seen < change.revision:
                self.drop(name)
