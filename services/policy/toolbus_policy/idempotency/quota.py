"""Limit the outcomes that each key stores in a day, so that no key fills the bucket."""

from collections import Counter
from dataclasses import dataclass, field
from time import time

from toolbus_common.errors import OverloadedError, RateExceededError
from toolbus_common.nats.bucket_sizes import Size
from toolbus_common.nats.topology import DAY

MAX_TOTAL_OUTCOMES = 200_000  # entries in memory, about 60 MB


@dataclass(slots=True)
class OutcomeQuota:
    """Stored outcomes as this replica knows them. An entry's name begins with its owner."""

    maximum: int
    max_bytes: int
    max_total: int = MAX_TOTAL_OUTCOMES
    _sizes: dict[str, Size] = field(default_factory=dict)  # the oldest change first
    _count: Counter[str] = field(default_factory=Counter)
    _bytes: Counter[str] = field(default_factory=Counter)

    def apply_change(self, size: Size) -> None:
        """Apply one change of the bucket, and evict expired entries."""
        self._evict(size.key)
        self._sizes[size.key] = size
        owner = size.key.partition(".")[0]
        self._count[owner] += 1
        self._bytes[owner] += size.bytes
        self.expire(time())

    def expire(self, now: float) -> None:
        """Evict entries that are a day old."""
        while self._sizes:
            oldest = next(iter(self._sizes.values()))
            if oldest.at + DAY > now:
                return
            self._evict(oldest.key)

    def check(self, name: str, key: str) -> None:
        """Check that another outcome may be stored for this key.

        Raises:
            RateExceededError: the key has reached its limit.
            OverloadedError: all keys together have reached the limit.

        """
        self.expire(time())
        owner = name.partition(".")[0]
        if name in self._sizes:
            return
        if len(self._sizes) >= self.max_total:
            raise OverloadedError(
                "The store of outcomes for idempotency keys is full; the call was not dispatched. "
                "Retry later, or call without an idempotency key."
            )
        if self._count[owner] >= self.maximum or self._bytes[owner] >= self.max_bytes:
            raise RateExceededError(
                f"'key:{key}' has stored {self._count[owner]} outcomes of idempotency keys in a "
                f"day ({self._bytes[owner]} bytes); the limit is {self.maximum} outcomes or "
                f"{self.max_bytes} bytes. The call was not dispatched: wait, or call without an "
                "idempotency key.",
                level=f"key:{key}",
                limit_calls=self.maximum,
                per="day",
            )

    def _evict(self, name: str) -> None:
        size = self._sizes.pop(name, None)
        if size is None:
            return
        owner = name.partition(".")[0]
        self._count[owner] -= 1
        self._bytes[owner] -= size.bytes
        if not self._count[owner]:
            del self._count[owner], self._bytes[owner]
