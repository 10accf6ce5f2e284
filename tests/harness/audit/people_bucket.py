"""People for tests, kept in a bucket in memory instead of the bus's."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from toolbus_common.errors import BusDownError
from toolbus_common.nats.kv_bucket import Bucket, Change
from toolbus_common.privacy.key_store import PersonKeys


@dataclass
class Kept:
    """A bucket in memory, as `PersonKeys` uses one; `asked` counts what it was asked."""

    entries: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    asked: int = 0
    up: bool = True

    async def get(self, key: str) -> Change | None:
        """The entry, or None."""
        self._ask()
        found = self.entries.get(key)
        return Change(key, *found) if found is not None else None

    async def swap(self, key: str, value: bytes, last: int) -> int | None:
        """Write only over revision `last`."""
        self._ask()
        if self.entries.get(key, (b"", 0))[1] != last:
            return None
        self.entries[key] = value, len(self.entries) + 1
        return self.entries[key][1]

    async def put(self, key: str, value: bytes) -> int:
        """Write, whatever is there."""
        self._ask()
        self.entries[key] = value, self.entries.get(key, (b"", 0))[1] + 1
        return self.entries[key][1]

    def _ask(self) -> None:
        self.asked += 1
        if not self.up:
            raise BusDownError("down")


def people(directory: Path, bucket: Kept) -> PersonKeys:
    """A service's people; services of one directory share their master key."""
    found = PersonKeys(directory / "people.key")
    found.open(cast("Bucket", bucket))
    return found
