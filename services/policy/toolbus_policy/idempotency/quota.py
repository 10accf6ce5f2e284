"""Limit the outcomes that each key stores in a day, so that no key fills the bucket."""

from dataclasses import dataclass, field
from time import time

from toolbus_common.calls.bucket_sizes import OwnedSizes
from toolbus_common.errors import OverloadedError, RateExceededError
from toolbus_common.nats.topology import DAY

MAX_TOTAL_OUTCOMES = 200_000  # entries in memory, about 60 MB


@dataclass(slots=True)
class OutcomeQuota:
    """The limits of stored outcomes. An entry's name begins with its owner."""

    maximum: int
    max_bytes: int
    max_total: int = MAX_TOTAL_OUTCOMES
    sizes: OwnedSizes = field(default_factory=lambda: OwnedSizes(DAY))

    def check(self, name: str, key: str) -> None:
        """Check that another outcome may be stored for this key.

        Raises:
            RateExceededError: the key has reached its limit.
            OverloadedError: all keys together have reached the limit.

        """
        self.sizes.expire(time())
        if name in self.sizes:
            return
        if len(self.sizes) >= self.max_total:
            raise OverloadedError(
                "The store of outcomes for idempotency keys is full; the call was not dispatched. "
                "Retry later, or call without an idempotency key."
            )
        owner = name.partition(".")[0]
        outcomes, size = self.sizes.entries_of(owner), self.sizes.bytes_of(owner)
        if outcomes >= self.maximum or size >= self.max_bytes:
            raise RateExceededError(
                f"'key:{key}' has stored {outcomes} outcomes of idempotency keys in a "
                f"day ({size} bytes); the limit is {self.maximum} outcomes or "
                f"{self.max_bytes} bytes. The call was not dispatched: wait, or call without an "
                "idempotency key.",
                level=f"key:{key}",
                limit_calls=self.maximum,
                per="day",
            )
