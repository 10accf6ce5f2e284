"""How large the entries of a bucket are, and when they were written."""

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

from toolbus_common.nats.connection import Bus
from toolbus_common.nats.kv_bucket import watched
from toolbus_common.nats.stream_follower import StreamFollower


@dataclass(frozen=True, slots=True)
class Size:
    """One entry as it is now: its bytes, and when it was written, in seconds since the epoch."""

    key: str
    bytes: int
    at: float


async def follow_sizes(bus: Bus, bucket: str, hear: Callable[[Size], None]) -> None:
    """Without end: every entry, then every change. All begins anew when the bucket was made anew.

    What is there at first is read whole, batch by batch; of changes only sizes are repeated.
    """
    prefix = f"$KV.{bucket}."
    following = StreamFollower(bus.client, f"KV_{bucket}", watched(bucket))
    async with aclosing(following.run(bus.on_back)) as batches:
        async for batch in batches:
            for kept in batch or ():
                at = datetime.fromisoformat(kept.at).timestamp()
                hear(Size(kept.subject.removeprefix(prefix), kept.size, at))
