"""Events for tests: made by the real contracts, said by the services that may say them."""

import asyncio
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
from toolbus_common.nats.connection import Bus, Envelope
from toolbus_common.nats.topology import EVENTS
from toolbus_common.settings import Settings

T = TypeVar("T")

PATIENCE = 90.0  # a bound for waiting, far above what anything takes


def allowed(**given: Any) -> CallAllowed:
    """An intent, with whatever a test cares about."""
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
    """An outcome, with whatever a test cares about."""
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
    """A user's own connection, as the server knows that user."""
    seed = settings.seed(user)
    bus = Bus(user, settings.nats_url, seed.get_secret_value() if seed else None)
    await bus.open()
    try:
        yield bus
    finally:
        await bus.close()


@asynccontextmanager
async def events_of(
    user: str, settings: Settings, directory: Path
) -> AsyncIterator[EventPublisher]:
    """A writer of events as a service has it."""
    async with bus_of(user, settings) as bus:
        writer = EventPublisher(stored_by(bus), Outbox(directory / f"{user}.events", 1 << 20))
        try:
            yield writer
        finally:
            await writer.close(2.0)


def stored_by(bus: Bus) -> Callable[[Envelope], Awaitable[None]]:
    """The bus' way to store, without a bound of its own: a machine may be too busy for that.

    What comes a second time has the same id, and is there once.
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


async def until(look: Callable[[], Awaitable[T]], what: str) -> T:
    """What `look` returns once it is true; fails, naming `what`, when that never happens."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not (found := await look()):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            return found
    except TimeoutError:
        raise AssertionError(f"never happened: {what}") from None


async def returns_soon(operator: Bus) -> None:
    """What audit took and did not acknowledge comes again after 4 s, not after its usual wait."""
    stream = operator.client.jetstream()
    config = (await stream.consumer_info(EVENTS, "audit")).config
    config.ack_wait = 4.0
    await stream.add_consumer(EVENTS, config)


async def consumed(operator: Bus) -> bool:
    """Whether audit has acknowledged everything."""
    info = await operator.client.jetstream().consumer_info(EVENTS, "audit")
    return bool(info.num_pending == 0 and info.num_ack_pending == 0)
