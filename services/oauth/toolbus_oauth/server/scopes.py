"""Validation of requested scopes against a resource and a grant."""

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
_TOOLBUS_PREFIXES = (f"{TOOLS}:", f"{ADMINISTER}:")
_OPERATOR_CLIENT = (
    "Only a client that an operator added ('toolbus clients add') can request administration."
)


def grant_scopes(
    config: Configuration, client: Client, requested: str, *, administration: bool
) -> str:
    """Return the requested scopes that exist, or the default scopes.

    Scopes of other services are ignored. Raises `OAuthError` for an unknown Toolbus scope, or for
    administration by a self-registered client.
    """
    if administration and client.registered:
        raise OAuthError("unauthorized_client", _OPERATOR_CLIENT)
    available = available_scopes(config, administration=administration)
    names = dict.fromkeys(requested[:LONGEST].split())
    if len(requested) > LONGEST or any(
        is_toolbus_scope(each) and each not in available for each in names
    ):
        raise OAuthError("invalid_scope", f"The valid scopes are: {' '.join(available)}.")
    default = [LOOK] if administration else first(config)
    return _plain([each for each in names if each in available] or default)


def available_scopes(config: Configuration, *, administration: bool) -> list[str]:
    """Return the scopes of a resource."""
    return list(ADMINISTRATION) if administration else offered(config)


def existing_scopes(config: Configuration, scope: str, *, administration: bool) -> str:
    """Return the parts of a scope that exist at a resource."""
    available = available_scopes(config, administration=administration)
    return _plain(each for each in scope.split() if each in available)


def narrow(granted: str, requested: str) -> str:
    """Return the requested scopes, or all granted scopes if the request names none.

    Raises `OAuthError` if the requested scopes exceed the grant.
    """
    if set(within(granted, requested)) != set(requested.split()):
        raise OAuthError("invalid_scope", "The requested scope exceeds the grant; sign in again.")
    return _plain(requested.split()) or granted


def within(granted: str, requested: str) -> list[str]:
    """Return the requested scopes that the grant includes."""
    granted_list = granted.split()
    return [
        each for each in requested.split() if each in granted_list or _covers(granted_list, each)
    ]


def descriptions(access: Access, rule: str, scope: str) -> list[str]:
    """Return a description of each scope for the person who consents."""
    return [_description(each, access, rule) for each in scope.split()]


def _description(scope: str, access: Access, rule: str) -> str:
    """Return one scope's description."""
    if scope == ADMINISTER:
        return f"administer Toolbus as {access.role}"
    if scope == LOOK:
        return "view configuration and spending, without changing anything"
    if scope == TOOLS:
        return f"use all tools that the rule {rule} grants"
    return f"use the tools of {scope.removeprefix(OF_GROUP)} that the rule {rule} grants"


def _covers(scopes: Iterable[str], scope: str) -> bool:
    return any(scope.startswith(f"{whole}:") for whole in (TOOLS, ADMINISTER) if whole in scopes)


def is_toolbus_scope(scope: str) -> bool:
    """Return whether a scope has the form of a Toolbus scope, even if it does not exist."""
    return scope in (TOOLS, ADMINISTER) or scope.startswith(_TOOLBUS_PREFIXES)


def _plain(scopes: Iterable[str]) -> str:
    """Join scopes, and omit each scope that another of these scopes includes."""
    distinct = dict.fromkeys(scopes)
    return " ".join(each for each in distinct if not _covers(distinct, each))
