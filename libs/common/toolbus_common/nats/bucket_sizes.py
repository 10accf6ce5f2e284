"""Observation of the sizes and write times of a bucket's entries."""

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

from toolbus_common.nats.connection import Bus
from toolbus_common.nats.kv_bucket import watched
from toolbus_common.nats.stream_follower import StreamFollower


@dataclass(frozen=True, slots=True)
class Size:
    """The current size of one entry in bytes, and its write time in seconds since the epoch."""

    key: str
    bytes: int
    at: float


async def follow_sizes(bus: Bus, bucket: str, receive: Callable[[Size], None]) -> None:
    """Call `receive` for every entry, then for every change. Never returns.

    If the bucket is re-created, all entries are passed again. The first entries are read
    completely, in batches. Of later changes only the size is transferred.
    """
    prefix = f"$KV.{bucket}."
    follower = StreamFollower(bus.client, f"KV_{bucket}", watched(bucket))
    async with aclosing(follower.run(bus.on_back)) as batches:
        async for batch in batches:
            for entry in batch or ():
                at = datetime.fromisoformat(entry.at).timestamp()
                receive(Size(entry.subject.removeprefix(prefix), entry.size, at))
