"""How large the entries of a bucket are, without reading them."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import DeliverPolicy

from toolbus_common.bus import Bus

log = logging.getLogger(__name__)

SIZE = "Nats-Msg-Size"
AGAIN_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Size:
    """One entry as it is now: its bytes, and when it was written, in seconds since the epoch."""

    key: str
    bytes: int
    at: float


async def follow_sizes(bus: Bus, bucket: str, hear: Callable[[Size], None]) -> None:
    """Without end: every entry, then every change. All begins anew when the bus comes back."""
    prefix = f"$KV.{bucket}."
    again = asyncio.Event()

    async def take(message: Msg) -> None:
        told = (message.headers or {}).get(SIZE)
        if told is not None:
            at = message.metadata.timestamp.timestamp()
            hear(Size(message.subject.removeprefix(prefix), int(told), at))

    bus.on_back.append(again.set)
    try:
        while True:
            again.clear()
            try:
                followed = await bus.client.jetstream().subscribe(
                    f"{prefix}>",
                    stream=f"KV_{bucket}",
                    cb=take,
                    ordered_consumer=True,
                    deliver_policy=DeliverPolicy.LAST_PER_SUBJECT,
                    headers_only=True,
                )
            except (NatsError, TimeoutError) as error:
                log.warning("sizes.not_followed", extra={"bucket": bucket, "reason": str(error)})
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            try:
                await again.wait()
            finally:
                if bus.connected:
                    await followed.unsubscribe()
    finally:
        bus.on_back.remove(again.set)
