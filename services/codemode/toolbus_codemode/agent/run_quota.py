"""Limit the runs that each principal stores in a day, so that none fills the bucket."""

from dataclasses import dataclass, field
from time import time

from toolbus_common.calls.bucket_sizes import OwnedSizes
from toolbus_common.errors import OverloadedError, RateExceededError
from toolbus_common.nats.topology import DAY, MAX_RUN_BYTES

MAX_RUNS = 20_000  # of a principal
MAX_BYTES = 256 << 20  # of a principal
MAX_TOTAL_RUNS = 200_000  # about 120 MB in memory
MAX_TOTAL_BYTES = MAX_RUN_BYTES * 3 // 4  # the rest is for runs that are in progress


@dataclass(slots=True)
class RunQuota:
    """The limits of stored runs. The names of both entries of a run begin with their owner."""

    maximum: int = MAX_RUNS
    max_bytes: int = MAX_BYTES
    max_total: int = MAX_TOTAL_RUNS
    max_total_bytes: int = MAX_TOTAL_BYTES
    sizes: OwnedSizes = field(default_factory=lambda: OwnedSizes(DAY))  # two entries for each run

    def check(self, owner: str, key: str) -> None:
        """Check that another run may be stored for this owner.

        Raises:
            RateExceededError: the owner has reached its limit.
            OverloadedError: all owners together have reached the limit.

        """
        self.sizes.expire(time())
        if len(self.sizes) // 2 >= self.max_total or self.sizes.total_bytes >= self.max_total_bytes:
            raise OverloadedError(
                "The store of agent runs is full, so no run was started. Retry later, or send the "
                "header 'x-toolbus-agent: off' for a request without agent mode."
            )
        runs, size = (self.sizes.entries_of(owner) + 1) // 2, self.sizes.bytes_of(owner)
        if runs >= self.maximum or size >= self.max_bytes:
            raise RateExceededError(
                f"'key:{key}' has stored {runs} agent runs in a day ({size} bytes); the limit is "
                f"{self.maximum} runs or {self.max_bytes} bytes. No run was started: wait, or send "
                "the header 'x-toolbus-agent: off' for a request without agent mode.",
                level=f"key:{key}",
                limit_calls=self.maximum,
                per="day",
            )
