"""Metrics of the stream of events: how full it is, and how many servers store it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from toolbus_common.errors import BusDownError
from toolbus_common.nats.stream_reader import StreamUse
from toolbus_common.observability.metrics import (
    EVENT_STREAM_COPIES,
    EVENT_STREAM_FILL,
    EVENT_STREAM_LAGGING,
)

SECONDS = 15.0  # between two measurements


async def measure_stream(read: Callable[[], Awaitable[StreamUse]]) -> None:
    """Update the metrics forever. Without a reply of the bus, they keep their values."""
    while True:
        with suppress(BusDownError):
            use = await read()
            EVENT_STREAM_FILL.set(use.fill)
            EVENT_STREAM_COPIES.set(use.replicas)
            EVENT_STREAM_LAGGING.set(use.lagging)
        await asyncio.sleep(SECONDS)
