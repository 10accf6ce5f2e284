"""Encrypt personal fields of an event before it exists, or strike them where no key is held."""

from typing import Any, TypeVar

from toolbus_common.contracts.events.base import Event
from toolbus_common.privacy.key_store import PersonKeys

F = TypeVar("F", bound=Event)
UNTOLD = "~"  # somebody, whose key could not be had
_NOBODY: frozenset[str] = frozenset()


def named(event: Event) -> frozenset[str]:
    """Whose keys an event needs; nobody's, for most."""
    if not event.PERSON or event.impersonal:
        return _NOBODY
    people, content = event.people, event.content
    return frozenset((*people.values(), *content.values())) if people or content else _NOBODY


def sealed(event: F, people: PersonKeys) -> F:
    """The event with pseudonyms for names, and its content sealed. Raises `KeyError`."""
    told: dict[str, Any] = {}
    for field, name in event.people.items():
        told[field] = people.pseudonym(name)
        for mentioning in event.MENTIONS:
            told[mentioning] = getattr(event, mentioning).replace(name, told[field])
    for field, owner in event.content.items():
        if text := getattr(event, field):
            told[field] = people.seal(owner, text)
    return event.model_copy(update=told)


def struck(event: F) -> F:
    """The event without anything personal: that it happened is told all the same."""
    told = dict.fromkeys(event.people, UNTOLD) | dict.fromkeys(event.content, "")
    for name in event.people.values():
        for mentioning in event.MENTIONS:
            told[mentioning] = getattr(event, mentioning).replace(name, UNTOLD)
    return event.model_copy(update=told)
