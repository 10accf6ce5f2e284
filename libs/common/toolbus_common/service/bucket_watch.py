"""Watch of a bucket that several services of one process share."""

import asyncio
import logging
from collections.abc import Callable

from toolbus_common.concurrency import first_of
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.kv_bucket import Bucket, Change

log = logging.getLogger(__name__)

Watcher = Callable[[Change | None], None]
AGAIN_SECONDS = 0.2
LOST_SECONDS = 2.0  # interval of checks for a lost connection


class BucketWatch:
    """One watch of a bucket. Every change is passed to `watcher`, in the order of the stream.

    None is passed after the entries that exist at the start. `revision` is the newest received
    revision.

    Several services of a process can run the same watch. One of them reads with its connection.
    When this service ends or loses its connection, another service reads the bucket from the
    beginning. Two services never read at the same time, so that changes stay in order.
    """

    def __init__(self, bucket: str, watcher: Watcher) -> None:
        self.bucket = bucket
        self.revision = 0
        self.caught_up = asyncio.Event()
        self._watcher = watcher
        self._turn = asyncio.Lock()
        self._bus: Bus | None = None  # connection of the service that reads
        self._others: list[Bus] = []  # connections of the services that wait for their turn

    @property
    def connected(self) -> bool:
        """Whether changes can arrive: false while the reading service has no connection."""
        return self._bus is None or self._bus.connected

    async def run(self, bus: Bus, bucket: Bucket) -> None:
        """Watch the bucket until the task is cancelled, whenever no other service watches it.

        `bucket` must be opened on `bus`.
        """
        while True:
            self._others.append(bus)
            try:
                await self._turn.acquire()
            finally:
                self._others.remove(bus)
            self._bus = bus
            try:
                await first_of(self._follow(bucket), self._until_another_can(bus))
            finally:
                self._bus = None
                self.caught_up.clear()
                self._turn.release()
            await asyncio.sleep(AGAIN_SECONDS)  # another service starts to read

    async def _until_another_can(self, bus: Bus) -> None:
        """Wait until this connection is lost and another service is connected."""
        while bus.connected or not any(each.connected for each in self._others):  # noqa: ASYNC110
            await asyncio.sleep(LOST_SECONDS)

    async def _follow(self, bucket: Bucket) -> None:
        while True:
            try:
                async for change in bucket.watch():
                    self._watcher(change)
                    if change is None:
                        self.caught_up.set()
                    else:
                        self.revision = change.revision
            except Exception:
                log.exception("service.watch_failed")
            await asyncio.sleep(AGAIN_SECONDS)
