"""Which scopes a client is given at a resource, of those it asks for. Pure."""

from collections.abc import Iterable

from toolbus_common.access.oauth_scopes import (
    ADMINISTER,
    ADMINISTRATION,
    LOOK,
    OF_GROUP,
    TOOLS,
    first,
    offered,
)
from toolbus_common.config import Access, Configuration
from toolbus_oauth.storage.records import Client
from toolbus_oauth.web.errors import OAuthError

LONGEST = 2048
_OURS = (f"{TOOLS}:", f"{ADMINISTER}:")
_VOUCHED = (
    "Only a client that an operator made ('toolbus clients add') can ask for the administration."
)


def given(declared: Configuration, client: Client, asked: str, *, administration: bool) -> str:
    """What a client is given of what it asks for; of what is not ours nothing is said.

    Raises `OAuthError`: it asks for what there is not here, or may not administer.
    """
    if administration and client.registered:
        raise OAuthError("unauthorized_client", _VOUCHED)
    there = there_are(declared, administration=administration)
    wished = dict.fromkeys(asked[:LONGEST].split())
    if len(asked) > LONGEST or any(is_ours(each) and each not in there for each in wished):
        raise OAuthError("invalid_scope", f"There are these scopes here: {' '.join(there)}.")
    usual = [LOOK] if administration else first(declared)
    return _plain([each for each in wished if each in there] or usual)


def there_are(declared: Configuration, *, administration: bool) -> list[str]:
    """The scopes of a resource."""
    return list(ADMINISTRATION) if administration else offered(declared)


def kept(declared: Configuration, told: str, *, administration: bool) -> str:
    """What of a scope counts at a resource; empty for none."""
    there = there_are(declared, administration=administration)
    return _plain(each for each in told.split() if each in there)


def narrowed(granted: str, asked: str) -> str:
    """What a client asks for of what it was granted. Raises `OAuthError` for more."""
    if set(within(granted, asked)) != set(asked.split()):
        raise OAuthError("invalid_scope", "More was not granted.")
    return _plain(asked.split()) or granted


def within(granted: str, asked: str) -> list[str]:
    """What is asked for and was granted."""
    held = granted.split()
    return [each for each in asked.split() if each in held or _covers(held, each)]


def sentences(access: Access, rule: str, scope: str) -> list[str]:
    """What a client may do with a scope, as the person is told."""
    return [_sentence(each, access, rule) for each in scope.split()]


def _sentence(scope: str, access: Access, rule: str) -> str:
    if scope == ADMINISTER:
        return f"administer Toolbus as {access.role}"
    if scope == LOOK:
        return "see what is declared and spent here, and change nothing"
    if scope == TOOLS:
        return f"use all tools that the rule {rule} grants"
    return f"use the tools of {scope.removeprefix(OF_GROUP)} that the rule {rule} grants"


def _covers(held: Iterable[str], scope: str) -> bool:
    return any(scope.startswith(f"{whole}:") for whole in (TOOLS, ADMINISTER) if whole in held)


def is_ours(scope: str) -> bool:
    """Whether a scope has a name of ours, also one there is not."""
    return scope in (TOOLS, ADMINISTER) or scope.startswith(_OURS)


def _plain(scopes: Iterable[str]) -> str:
    """Scopes without those that another of them holds."""
    told = dict.fromkeys(scopes)
    return " ".join(each for each in told if not _covers(told, each))
