"""Keys of persons, in a bucket in memory instead of on the bus."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from toolbus_common.errors import BusDownError
from toolbus_common.nats.kv_bucket import Bucket, Change
from toolbus_common.privacy.key_store import PersonKeys


@dataclass
class MemoryBucket:
    """A bucket in memory with the interface that `PersonKeys` uses.

    `reads` is the number of reads.
    """

    entries: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    reads: int = 0
    up: bool = True

    async def get(self, key: str) -> Change | None:
        """Return the entry; None if it does not exist."""
        self._ask()
        found = self.entries.get(key)
        return Change(key, *found) if found is not None else None

    async def swap(self, key: str, value: bytes, last: int) -> int | None:
        """Write the entry if its revision is still `last`."""
        self._ask()
        if self.entries.get(key, (b"", 0))[1] != last:
            return None
        self.entries[key] = value, len(self.entries) + 1
        return self.entries[key][1]

    async def put(self, key: str, value: bytes) -> int:
        """Write the entry unconditionally."""
        self._ask()
        self.entries[key] = value, self.entries.get(key, (b"", 0))[1] + 1
        return self.entries[key][1]

    def _ask(self) -> None:
        self.reads += 1
        if not self.up:
            raise BusDownError("down")


def people(directory: Path, bucket: MemoryBucket) -> PersonKeys:
    """Return the person keys of a service. Services of one directory share the master key."""
    found = PersonKeys(directory / "people.key")
    found.open(cast("Bucket", bucket))
    return found
