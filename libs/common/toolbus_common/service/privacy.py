"""Has a room know people: it watches their bucket, and seals what its facts say of them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from toolbus_common.nats.topology import PEOPLE
from toolbus_common.privacy.key_store import People
from toolbus_common.service.service import Room


def know_people(room: Room) -> People:
    """Wire it. Nothing connects until the room runs."""
    people = People(room.settings.people_key_file)
    room.facts.people = people
    room.watches(PEOPLE)(people.hear)

    @room.needs
    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        people.open(await room.bucket(PEOPLE))
        yield

    return people
