"""State that the services of one process share: direct calls, and projections of buckets."""

from typing import Any, Protocol, TypeVar

from toolbus_common.messaging.local_transport import LocalTransport
from toolbus_common.nats.kv_bucket import Change
from toolbus_common.service.bucket_watch import BucketWatch


class Projection(Protocol):
    """State that is derived from the changes of a bucket."""

    @property
    def fault(self) -> str:
        """The reason why an entry cannot be used; empty if all entries can be used."""

    def apply_change(self, change: Change | None) -> None:
        """Apply one change; None follows after the entries that exist at the start."""


P = TypeVar("P", bound=Projection)


class ProcessContext:
    """State that the services of one process share.

    `alone` is set for a process with one service, of which replicas are replaced one by one.
    """

    def __init__(self, *, alone: bool = False) -> None:
        self.alone = alone
        self.calls = LocalTransport()
        self._projections: dict[tuple[str, type[Any]], tuple[Any, BucketWatch]] = {}

    def projection(self, bucket: str, kind: type[P]) -> tuple[P, BucketWatch]:
        """Return the projection of this kind for a bucket, and its watch.

        The services of the process share both. They contain nothing until the watch runs.
        """
        found = self._projections.get((bucket, kind))
        if found is None:
            made = kind()
            found = self._projections[bucket, kind] = made, BucketWatch(bucket, made.apply_change)
        return found
