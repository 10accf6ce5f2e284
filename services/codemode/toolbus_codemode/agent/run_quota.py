"""Limit the runs that each principal stores in a day, so that none fills the bucket."""

from collections import Counter
from dataclasses import dataclass, field
from time import time

from toolbus_common.errors import OverloadedError, RateExceededError
from toolbus_common.nats.bucket_sizes import Size
from toolbus_common.nats.topology import DAY, MAX_RUN_BYTES

MAX_RUNS = 20_000  # of a principal
MAX_BYTES = 256 << 20  # of a principal
MAX_TOTAL_RUNS = 200_000  # about 120 MB in memory
MAX_TOTAL_BYTES = MAX_RUN_BYTES * 3 // 4  # the rest is for runs that are in progress


@dataclass(slots=True)
class RunQuota:
    """Stored runs as this replica knows them. The names of both entries begin with their owner."""

    maximum: int = MAX_RUNS
    max_bytes: int = MAX_BYTES
    max_total: int = MAX_TOTAL_RUNS
    max_total_bytes: int = MAX_TOTAL_BYTES
    _sizes: dict[str, Size] = field(default_factory=dict)  # the oldest change first
    _entries: Counter[str] = field(default_factory=Counter)  # two for each run
    _bytes: Counter[str] = field(default_factory=Counter)
    _total_bytes: int = 0

    def apply_change(self, size: Size) -> None:
        """Apply one change of the bucket, and evict expired entries."""
        self._evict(size.key)
        self._sizes[size.key] = size
        owner = size.key.partition(".")[0]
        self._entries[owner] += 1
        self._bytes[owner] += size.bytes
        self._total_bytes += size.bytes
        self.expire(time())

    def expire(self, now: float) -> None:
        """Evict entries that are a day old."""
        while self._sizes:
            oldest = next(iter(self._sizes.values()))
            if oldest.at + DAY > now:
                return
            self._evict(oldest.key)

    def check(self, owner: str, key: str) -> None:
        """Check that another run may be stored for this owner.

        Raises:
            RateExceededError: the owner has reached its limit.
            OverloadedError: all owners together have reached the limit.

        """
        self.expire(time())
        if len(self._sizes) // 2 >= self.max_total or self._total_bytes >= self.max_total_bytes:
            raise OverloadedError(
                "The store of agent runs is full, so no run was started. Retry later, or send the "
                "header 'x-toolbus-agent: off' for a request without agent mode."
            )
        runs, size = (self._entries[owner] + 1) // 2, self._bytes[owner]
        if runs >= self.maximum or size >= self.max_bytes:
            raise RateExceededError(
                f"'key:{key}' has stored {runs} agent runs in a day ({size} bytes); the limit is "
                f"{self.maximum} runs or {self.max_bytes} bytes. No run was started: wait, or send "
                "the header 'x-toolbus-agent: off' for a request without agent mode.",
                level=f"key:{key}",
                limit_calls=self.maximum,
                per="day",
            )

    def _evict(self, name: str) -> None:
        size = self._sizes.pop(name, None)
        if size is None:
            return
        owner = name.partition(".")[0]
        self._entries[owner] -= 1
        self._bytes[owner] -= size.bytes
        self._total_bytes -= size.bytes
        if not self._entries[owner]:
            del self._entries[owner], self._bytes[owner]
