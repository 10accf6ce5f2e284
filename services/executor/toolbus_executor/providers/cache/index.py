"""Index of the cached responses of all replicas, in memory (no I/O)."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from time import time

import msgspec

from toolbus_common.config.models.response_cache import LONGEST_TTL
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
MAX_SWEPT = 4  # expired entries that are removed from memory with each change
MAX_ENTRIES = 200_000  # of all customers
MAX_SEALED = 64 << 20  # bytes of encrypted comparisons of all entries
MAX_PURGES = 1000
Group = tuple[str, str]  # customer and provider


@dataclass(slots=True)
class _Totals:
    """The entries of one customer at one provider, the oldest first."""

    names: OrderedDict[str, None] = field(default_factory=OrderedDict)
    bytes: int = 0


class Index:
    """The descriptions of all entries, and the purges. It follows the bucket.

    The bucket sends no change when an entry expires or is discarded. So expired entries and purges
    are removed here too, and there are limits for all customers together, above which the oldest
    entries are removed. `clock` is in seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float] = time) -> None:
        self.revision = 0  # of the newest change that was applied
        self._clock = clock
        self._entries: OrderedDict[str, Entry] = OrderedDict()  # the oldest first
        self._sealed_bytes = 0
        self._groups: dict[Group, _Totals] = {}
        self._contexts: dict[bytes, dict[str, None]] = {}
        # By name: the revision, the purge, and the time when it is removed; the oldest first.
        self._purges: OrderedDict[str, tuple[int, Purge, float]] = OrderedDict()
        self._newest_purge = 0  # revision of the newest purge
        self._oldest_seen = 0  # entries of requests before this revision are ignored

    def __len__(self) -> int:
        return len(self._entries)

    def items(self) -> Iterator[tuple[str, Entry]]:
        """Return all entries with their names."""
        return iter(self._entries.items())

    def get(self, name: str) -> Entry | None:
        """Return an entry; None if it does not exist."""
        return self._entries.get(name)

    def similar(self, context: bytes, limit: int) -> tuple[str, ...]:
        """Return the names of the newest entries with this context, the newest first."""
        return tuple(islice(reversed(self._contexts.get(context, {})), limit))

    def totals(self) -> dict[Group, tuple[int, int]]:
        """Return the number and the bytes of the entries of each group."""
        return {group: (len(each.names), each.bytes) for group, each in self._groups.items()}

    def excess(
        self, group: Group, size: int, entries: int, max_bytes: int, oldest: float = 0.0
    ) -> list[str]:
        """Return the entries of a group to remove before one of `size` bytes is added.

        These are entries that are older than `oldest` (seconds since the epoch), and the oldest
        entries while the group exceeds a limit.
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
        if entry.seen >= self._newest_purge:
            return False
        return entry.seen < self._oldest_seen or any(
            revision > entry.seen and purge.selects(name, entry)
            for revision, purge, _ in self._purges.values()
        )

    def add(self, name: str, entry: Entry) -> None:
        """Add an entry, unless a purge that the writer did not know selects it."""
        self.drop(name)
        self._sweep()
        if self.is_purged(name, entry):
            return
        self._entries[name] = entry
        self._sealed_bytes += len(entry.sealed)
        totals = self._groups.setdefault((entry.customer, entry.provider), _Totals())
        totals.names[name] = None
        totals.bytes += entry.size
        if entry.context:
            self._contexts.setdefault(entry.context, {})[name] = None
        while len(self._entries) > MAX_ENTRIES or self._sealed_bytes > MAX_SEALED:
            self.drop(next(iter(self._entries)))

    def drop(self, name: str) -> None:
        """Remove an entry if it exists."""
        entry = self._entries.pop(name, None)
        if entry is None:
            return
        self._sealed_bytes -= len(entry.sealed)
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
        self.__init__(self._clock)  # type: ignore[misc]

    def _apply_purge(self, change: Change) -> None:
        if change.value is None:
            self._purges.pop(change.key, None)
            return
        try:
            purge = decode_purge(change.value)
        except msgspec.MsgspecError:
            return
        self.purge(change.revision, purge)

    def purge(self, revision: int, purge: Purge) -> list[str]:
        """Apply a purge with this revision. Return the names of the removed entries."""
        known = self._purges.get(purge.name)
        if known is not None and known[0] >= revision:
            return []
        self._purges[purge.name] = revision, purge, self._clock() + LONGEST_TTL
        self._purges.move_to_end(purge.name)
        self._newest_purge = max(self._newest_purge, revision)
        if len(self._purges) > MAX_PURGES:
            _, (revision_of_oldest, _, _) = self._purges.popitem(last=False)
            self._oldest_seen = max(self._oldest_seen, revision_of_oldest)
        names = [name for name in self.select(purge) if self._entries[name].seen < revision]
        for name in names:
            self.drop(name)
        return names

    def _sweep(self) -> None:
        """Remove some of the entries and purges that are older than the longest lifetime."""
        now = self._clock()
        for _ in range(MAX_SWEPT):
            name, entry = next(iter(self._entries.items()), ("", None))
            if entry is None or entry.at > now - LONGEST_TTL:
                break
            self.drop(name)
        for _ in range(MAX_SWEPT):
            name, (_, _, until) = next(iter(self._purges.items()), ("", (0, Purge(), now + 1)))
            if until > now:
                break
            del self._purges[name]
