"""Cache of what callers see of the catalogue."""

from collections.abc import Hashable
from typing import Generic, TypeVar

V = TypeVar("V")

MAX_ENTRIES = 2_000  # many, because each request can have other restrictions
MAX_BYTES = 64 << 20


class ViewCache(Generic[V]):
    """Values by grants and kind of list. A full cache is cleared."""

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._max_entries = max_entries
        self._values: dict[Hashable, V] = {}
        self._bytes = 0
        self.get = self._values.get

    def put(self, key: Hashable, value: V, size: int = 0) -> None:
        """Store a value of this size in bytes."""
        if self._bytes >= MAX_BYTES or len(self._values) >= self._max_entries:
            self.clear()
        self._values[key] = value
        self._bytes += size

    def clear(self) -> None:
        """Remove all values."""
        self._values.clear()
        self._bytes = 0
