"""Person keys of a service, and their use for personal event fields."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from toolbus_common.nats.topology import PEOPLE
from toolbus_common.privacy.key_store import PersonKeys
from toolbus_common.service.service import Service


def use_person_keys(service: Service) -> PersonKeys:
    """Add person keys to a service, and return them. They connect when the service runs."""
    people = PersonKeys(service.key_file("people", service.settings.people_key_file))
    service.events.people = people
    service.person_keys_fault = people.current_fault
    service.watch_bucket(PEOPLE)(people.apply_change)

    @service.add_resource
    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        people.open(await service.bucket(PEOPLE))
        yield

    return people
