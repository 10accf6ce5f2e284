"""The configuration repository of an installation, opened as the operator."""

import getpass
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from toolbus_cli.state_dir import State
from toolbus_common.config_store.literal_secrets import Writer
from toolbus_common.config_store.repository import ConfigRepository
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.messaging.outbox import Outbox
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import CONFIG, PEOPLE
from toolbus_common.privacy.key_store import PersonKeys
from toolbus_common.settings import Settings

EVENT_SECONDS = 3.0


@asynccontextmanager
async def opened(bus: Bus, state: State) -> AsyncIterator[ConfigRepository]:
    """Yield the configuration repository on an open bus.

    At exit, the repository's pending events are delivered or stored in the outbox.
    """
    limit = Settings().spool_bytes
    events = EventPublisher(bus.store, Outbox(state.root / "spool" / "operator.events", limit))
    events.people = await people_of(bus, state)
    events.restore()
    try:
        literals = Writer.at(Settings(state_dir=state.root).encryption)
        yield ConfigRepository(bus, await bus.bucket(CONFIG), events, me(), literals, operator=True)
    finally:
        await events.close(EVENT_SECONDS)


async def people_of(bus: Bus, state: State) -> PersonKeys:
    """Return the encryption keys of data subjects, which are loaded on demand."""
    people = PersonKeys(Settings(state_dir=state.root).people_key_file)
    people.open(await bus.bucket(PEOPLE))
    return people


def me() -> str:
    """Return the operator's user name in the operating system."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "operator"
