"""What the services of one process share: direct calls, and projections of buckets."""

from typing import Any, Protocol, TypeVar

from toolbus_common.messaging.local_transport import LocalTransport
from toolbus_common.nats.kv_bucket import Change
from toolbus_common.service.bucket_watch import BucketWatch


class Projection(Protocol):
    """State that is built from the changes of a bucket."""

    def apply_change(self, change: Change | None) -> None:
        """Apply one change; None means that the first load is complete."""


P = TypeVar("P", bound=Projection)


class ProcessContext:
    """The parts of a process that its services share."""

    def __init__(self) -> None:
        self.calls = LocalTransport()
        self._projections: dict[tuple[str, type[Any]], tuple[Any, BucketWatch]] = {}

    def projection(self, bucket: str, kind: type[P]) -> tuple[P, BucketWatch]:
        """Return the process's only projection of this `kind` and its watch.

        Both are empty at first.
        """
        found = self._projections.get((bucket, kind))
        if found is None:
            made = kind()
            found = self._projections[bucket, kind] = made, BucketWatch(bucket, made.apply_change)
        return found
