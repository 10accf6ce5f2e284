"""What is personal in a fact, sealed before the fact exists; or struck where nobody can seal it."""

from typing import Any, TypeVar

from toolbus_common.contracts.events.base import Fact
from toolbus_common.privacy.key_store import People

F = TypeVar("F", bound=Fact)
UNTOLD = "~"  # somebody, whose key could not be had
_NOBODY: frozenset[str] = frozenset()


def named(fact: Fact) -> frozenset[str]:
    """Whose keys a fact needs; nobody's, for most."""
    if not fact.PERSON or fact.impersonal:
        return _NOBODY
    people, content = fact.people, fact.content
    return frozenset((*people.values(), *content.values())) if people or content else _NOBODY


def sealed(fact: F, people: People) -> F:
    """The fact with pseudonyms for names, and its content sealed. Raises `KeyError`."""
    told: dict[str, Any] = {}
    for field, name in fact.people.items():
        told[field] = people.pseudonym(name)
        for mentioning in fact.MENTIONS:
            told[mentioning] = getattr(fact, mentioning).replace(name, told[field])
    for field, owner in fact.content.items():
        if text := getattr(fact, field):
            told[field] = people.seal(owner, text)
    return fact.model_copy(update=told)


def struck(fact: F) -> F:
    """The fact without anything personal: that it happened is told all the same."""
    told = dict.fromkeys(fact.people, UNTOLD) | dict.fromkeys(fact.content, "")
    for name in fact.people.values():
        for mentioning in fact.MENTIONS:
            told[mentioning] = getattr(fact, mentioning).replace(name, UNTOLD)
    return fact.model_copy(update=told)
