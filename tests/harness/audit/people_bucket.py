"""Per-person keys in a bucket in memory instead of on the bus."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from toolbus_common.errors import BusDownError
from toolbus_common.nats.kv_bucket import Bucket, Change
from toolbus_common.privacy.key_store import PersonKeys


@dataclass
class MemoryBucket:
    """A bucket in memory with the interface that `PersonKeys` uses; `reads` counts the reads."""

    entries: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    reads: int = 0
    up: bool = True

    async def get(self, key: str) -> Change | None:
        """Return the entry, or None."""
        self._ask()
        found = self.entries.get(key)
        return Change(key, *found) if found is not None else None

    async def swap(self, key: str, value: bytes, last: int) -> int | None:
        """Write only if the revision is still `last`."""
        self._ask()
        if self.entries.get(key, (b"", 0))[1] != last:
            return None
        self.entries[key] = value, len(self.entries) + 1
        return self.entries[key][1]

    async def put(self, key: str, value: bytes) -> int:
        """Write unconditionally."""
        self._ask()
        self.entries[key] = value, self.entries.get(key, (b"", 0))[1] + 1
        return self.entries[key][1]

    def _ask(self) -> None:
        self.reads += 1
        if not self.up:
            raise BusDownError("down")


def people(directory: Path, bucket: MemoryBucket) -> PersonKeys:
    """Return a service's people; services of one directory share their master key."""
    found = PersonKeys(directory / "people.key")
    found.open(cast("Bucket", bucket))
    return found
