"""How many outcomes each key has kept in a day, so that none of them fills the bucket."""

from collections import Counter
from dataclasses import dataclass, field
from time import time

from toolbus_common.errors import OverloadedError, RateExceededError
from toolbus_common.nats.bucket_sizes import Size
from toolbus_common.nats.topology import DAY

MOST_IN_ALL = 200_000  # entries this replica keeps in mind, some 60 MB


@dataclass(slots=True)
class Allowance:
    """What this replica has heard of the bucket. An entry's name begins with whose it is."""

    most: int
    most_bytes: int
    most_in_all: int = MOST_IN_ALL
    _sizes: dict[str, Size] = field(default_factory=dict)  # the longest unchanged first
    _count: Counter[str] = field(default_factory=Counter)
    _bytes: Counter[str] = field(default_factory=Counter)

    def hear(self, size: Size) -> None:
        """Take one change of the bucket, and forget what the bucket has forgotten."""
        self._forget(size.key)
        self._sizes[size.key] = size
        owner = size.key.partition(".")[0]
        self._count[owner] += 1
        self._bytes[owner] += size.bytes
        self.expire(time())

    def expire(self, now: float) -> None:
        """Forget what is a day old."""
        while self._sizes:
            oldest = next(iter(self._sizes.values()))
            if oldest.at + DAY > now:
                return
            self._forget(oldest.key)

    def check(self, name: str, key: str) -> None:
        """Whether one more may be kept for this key.

        Raises:
            RateExceededError: the key has kept what it may.
            OverloadedError: all keys together have.

        """
        self.expire(time())
        owner = name.partition(".")[0]
        if name in self._sizes:
            return
        if len(self._sizes) >= self.most_in_all:
            raise OverloadedError(
                "No room is left for outcomes of calls with an idempotency key; nothing was sent. "
                "Call without such a key, or later."
            )
        if self._count[owner] >= self.most or self._bytes[owner] >= self.most_bytes:
            raise RateExceededError(
                f"key:{key} has used {self._count[owner]} idempotency keys in a day, whose "
                f"outcomes take {self._bytes[owner]} bytes; at most {self.most} are kept, or "
                f"{self.most_bytes} bytes. Nothing was sent: wait, or call without such a key.",
                level=f"key:{key}",
                limit_calls=self.most,
                per="day",
            )

    def _forget(self, name: str) -> None:
        size = self._sizes.pop(name, None)
        if size is None:
            return
        owner = name.partition(".")[0]
        self._count[owner] -= 1
        self._bytes[owner] -= size.bytes
        if not self._count[owner]:
            del self._count[owner], self._bytes[owner]
