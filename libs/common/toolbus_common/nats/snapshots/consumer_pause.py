"""Pause of a durable consumer, so that its subscriber has stored all that it received."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from time import monotonic

from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError

from toolbus_common.concurrency import in_background
from toolbus_common.errors import BusDownError
from toolbus_common.nats.connection import Bus

PAUSE_SECONDS = 60.0  # from the last extension: a command that is killed leaves no longer pause
EXTEND_SECONDS = 15.0
SECONDS = 10.0
_POLL_SECONDS = 0.1


@asynccontextmanager
async def paused(bus: Bus, stream: str, consumer: str, patience: float) -> AsyncIterator[None]:
    """Pause a consumer, and wait until every delivered message is acknowledged.

    Raises `BusDownError` if this takes longer than `patience` seconds.
    """
    await _pause(bus, stream, consumer)
    try:
        async with in_background(_extend(bus, stream, consumer)):
            await _until_acknowledged(bus, stream, consumer, patience)
            yield
    finally:
        await resume(bus, stream, consumer)


async def resume(bus: Bus, stream: str, consumer: str) -> None:
    """End a pause. Raises `BusDownError`."""
    await _request(bus, stream, consumer, {})


async def _pause(bus: Bus, stream: str, consumer: str) -> None:
    until = datetime.now(UTC) + timedelta(seconds=PAUSE_SECONDS)
    await _request(bus, stream, consumer, {"pause_until": until.isoformat()})


async def _extend(bus: Bus, stream: str, consumer: str) -> None:
    while True:
        await asyncio.sleep(EXTEND_SECONDS)
        await _pause(bus, stream, consumer)


async def _until_acknowledged(bus: Bus, stream: str, consumer: str, patience: float) -> None:
    give_up = monotonic() + patience
    while True:
        try:
            info = await bus.client.jetstream().consumer_info(stream, consumer)
        except (NatsError, JetStreamError, TimeoutError) as error:
            raise _failed(consumer, str(error)) from error
        if not info.num_ack_pending:
            return
        if monotonic() > give_up:
            raise _failed(consumer, f"{info.num_ack_pending} messages are not acknowledged")
        await asyncio.sleep(_POLL_SECONDS)


async def _request(bus: Bus, stream: str, consumer: str, body: dict[str, str]) -> None:
    subject = f"$JS.API.CONSUMER.PAUSE.{stream}.{consumer}"
    try:
        reply = await bus.client.request(subject, json.dumps(body).encode(), timeout=SECONDS)
    except (NatsError, TimeoutError) as error:
        raise _failed(consumer, str(error)) from error
    if refused := json.loads(reply.data).get("error"):
        raise _failed(consumer, str(refused.get("description", "")))


def _failed(consumer: str, why: str) -> BusDownError:
    return BusDownError(
        f"The consumer '{consumer}' cannot be paused ({why}); check 'toolbus status' and retry."
    )
