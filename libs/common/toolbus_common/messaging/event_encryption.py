"""Encryption of personal fields of events before they are published.

Without a key, these fields are removed.
"""

from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

from toolbus_common.contracts.events.base import Event

F = TypeVar("F", bound=Event)
UNKNOWN_PERSON = "~"  # replaces a name whose key is not available
_NO_PERSON: frozenset[str] = frozenset()


class PersonKeyring(Protocol):
    """The operations on person keys that the event publisher needs."""

    def known(self, name: str) -> object | None:
        """Return the key of a person; None if it is not in memory."""

    def pseudonym(self, name: str) -> str:
        """Return the pseudonym of a person. Raises `KeyError` if the key is not in memory."""

    def seal(self, name: str, text: str) -> str:
        """Encrypt a text with a person's key. Raises `KeyError` if the key is not in memory."""

    async def learn(self, names: Iterable[str]) -> None:
        """Load the keys of these persons, and create the missing keys. Raises `BusDownError`."""


def named(event: Event) -> frozenset[str]:
    """Return the names of the persons whose keys an event needs; empty for most events."""
    if not event.PERSON:
        return _NO_PERSON
    people, content = event.people, event.content
    return frozenset((*people.values(), *content.values())) if people or content else _NO_PERSON


def sealed(event: F, people: PersonKeyring) -> F:
    """Return the event with pseudonyms and encrypted content. Raises `KeyError`."""
    update: dict[str, Any] = {}
    for field, name in event.people.items():
        update[field] = people.pseudonym(name)
        for mentioning in event.MENTIONS:
            update[mentioning] = getattr(event, mentioning).replace(name, update[field])
    for field, owner in event.content.items():
        if text := getattr(event, field):
            update[field] = people.seal(owner, text)
    return event.model_copy(update=update)


def struck(event: F) -> F:
    """Return the event without personal data, so that it can be published without a key."""
    update = dict.fromkeys(event.people, UNKNOWN_PERSON) | dict.fromkeys(event.content, "")
    for name in event.people.values():
        for mentioning in event.MENTIONS:
            update[mentioning] = getattr(event, mentioning).replace(name, UNKNOWN_PERSON)
    return event.model_copy(update=update)
