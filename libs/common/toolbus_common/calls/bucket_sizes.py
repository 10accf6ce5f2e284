"""Observation of the sizes and write times of a bucket's entries."""

from collections import Counter
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from time import time

from toolbus_common.nats.connection import Bus
from toolbus_common.nats.kv_bucket import watched
from toolbus_common.nats.stream_follower import StreamFollower


@dataclass(frozen=True, slots=True)
class Size:
    """The current size of one entry in bytes, and its write time in seconds since the epoch."""

    key: str
    bytes: int
    at: float


class OwnedSizes:
    """The entries of a bucket and their sizes, by owner, as this replica knows them.

    The name of an entry begins with its owner. An entry expires after `lifetime` seconds.
    """

    def __init__(self, lifetime: float) -> None:
        self.total_bytes = 0
        self._lifetime = lifetime
        self._sizes: dict[str, Size] = {}  # the oldest change first
        self._entries: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._sizes)

    def __contains__(self, name: str) -> bool:
        return name in self._sizes

    def entries_of(self, owner: str) -> int:
        """Return the number of an owner's entries."""
        return self._entries[owner]

    def bytes_of(self, owner: str) -> int:
        """Return the size of an owner's entries."""
        return self._bytes[owner]

    def apply_change(self, size: Size) -> None:
        """Apply one change of the bucket, and evict expired entries."""
        self._evict(size.key)
        self._sizes[size.key] = size
        owner = _owner_of(size.key)
        self._entries[owner] += 1
        self._bytes[owner] += size.bytes
        self.total_bytes += size.bytes
        self.expire(time())

    def expire(self, now: float) -> None:
        """Evict expired entries."""
        while self._sizes:
            oldest = next(iter(self._sizes.values()))
            if oldest.at + self._lifetime > now:
                return
            self._evict(oldest.key)

    def _evict(self, name: str) -> None:
        size = self._sizes.pop(name, None)
        if size is None:
            return
        owner = _owner_of(name)
        self._entries[owner] -= 1
        self._bytes[owner] -= size.bytes
        self.total_bytes -= size.bytes
        if not self._entries[owner]:
            del self._entries[owner], self._bytes[owner]


def _owner_of(name: str) -> str:
    return name.partition(".")[0]


async def follow_sizes(bus: Bus, bucket: str, receive: Callable[[Size], None]) -> None:
    """Call `receive` for every entry, then for every change. Never returns.

    If the bucket is re-created, all entries are passed again. The first entries are read
    completely, in batches. Of later changes only the size is transferred.
    """
    prefix = f"$KV.{bucket}."
    follower = StreamFollower(bus.client, f"KV_{bucket}", watched(bucket))
    async with aclosing(follower.run(bus.on_back)) as batches:
        async for batch in batches:
            for entry in batch or ():
                at = datetime.fromisoformat(entry.at).timestamp()
                receive(Size(entry.subject.removeprefix(prefix), entry.size, at))
