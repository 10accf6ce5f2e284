"""Events for tests. They are built with the real contracts, and published with real permissions."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic, time
from typing import Any, TypeVar

from toolbus_common.contracts.events.calls import CallAllowed, CallCompleted
from toolbus_common.errors import BusDownError
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.messaging.outbox import Outbox
from toolbus_common.nats.connection import Bus, Envelope, StoredMessage, stored
from toolbus_common.nats.pull_consumer import PullConsumer
from toolbus_common.nats.topology import EVENTS
from toolbus_common.settings import Settings

T = TypeVar("T")
Pull = Callable[[int, float], Awaitable[list[StoredMessage]]]

PATIENCE = 90.0  # maximum wait in seconds, far above the usual time


def allowed(**given: Any) -> CallAllowed:
    """Return the event of an allowed call. `given` overrides its fields."""
    call = given.pop("call_id", secrets.token_hex(12))
    return CallAllowed(
        **{
            "id": f"{call}.allowed",
            "at": time(),
            "customer": "acme",
            "call_id": call,
            "key": "bot",
            "team": "support",
            "server": "docs",
            "tool": "search",
            "charge": 2000,
            **given,
        }
    )


def completed(**given: Any) -> CallCompleted:
    """Return the event of a completed call. `given` overrides its fields."""
    call = given.pop("call_id", secrets.token_hex(12))
    return CallCompleted(
        **{
            "id": f"{call}.completed",
            "at": time(),
            "customer": "acme",
            "call_id": call,
            "key": "bot",
            "server": "docs",
            "tool": "search",
            "latency_us": 1234,
            **given,
        }
    )


@asynccontextmanager
async def bus_of(user: str, settings: Settings) -> AsyncIterator[Bus]:
    """Connect with the permissions of a bus user."""
    seed = settings.seed(user)
    bus = Bus(user, settings.nats_url, seed.get_secret_value() if seed else None)
    await bus.open()
    try:
        yield bus
    finally:
        await bus.close()


@asynccontextmanager
async def pulling(bus: Bus, durable: str) -> AsyncIterator[Pull]:
    """Return a function that pulls a number of messages within a number of seconds."""
    consumer = PullConsumer(bus.client, EVENTS, durable)

    async def pull(maximum: int, seconds: float) -> list[StoredMessage]:
        return [stored(message) for message in await consumer.next(maximum, seconds)]

    await consumer.open()
    try:
        yield pull
    finally:
        await consumer.close()


@asynccontextmanager
async def events_of(
    user: str, settings: Settings, directory: Path
) -> AsyncIterator[EventPublisher]:
    """Return an event publisher with the configuration of a service."""
    async with bus_of(user, settings) as bus:
        writer = EventPublisher(stored_by(bus), Outbox(directory / f"{user}.events", 1 << 20))
        try:
            yield writer
        finally:
            await writer.close(2.0)


def stored_by(bus: Bus) -> Callable[[Envelope], Awaitable[None]]:
    """Return the bus's `store` without a time limit, because machines can be busy.

    A retry has the same message id, so the stream stores the message once.
    """

    async def store(envelope: Envelope) -> None:
        give_up = monotonic() + PATIENCE
        while True:
            try:
                await bus.store(envelope)
            except BusDownError as error:
                slow = bus.connected and isinstance(error.__cause__, TimeoutError)
                if not slow or monotonic() > give_up:
                    raise
            else:
                return

    return store


async def returns_soon(operator: Bus) -> None:
    """Shorten the time after which events are redelivered that audit did not acknowledge to 4 s."""
    stream = operator.client.jetstream()
    config = (await stream.consumer_info(EVENTS, "audit")).config
    config.ack_wait = 4.0
    await stream.add_consumer(EVENTS, config)


async def consumed(operator: Bus) -> bool:
    """Return whether audit has acknowledged all events."""
    info = await operator.client.jetstream().consumer_info(EVENTS, "audit")
    return bool(info.num_pending == 0 and info.num_ack_pending == 0)
