"""Which rule covers somebody, and what they are called here. Pure."""

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from toolbus_common.config import LOCAL, MACHINES, Access, Configuration

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")


def covering(declared: Configuration, issuer: str, claims: Mapping[str, Any]) -> str | None:
    """The first rule that covers whom this issuer vouches for with these claims."""
    for name, access in declared.access.items():
        if access.issuer == issuer and _all_met(access, claims):
            return name
    return None


def entitling(
    declared: Configuration, issuer: str, claims: Mapping[str, Any], *, administers: bool
) -> str | None:
    """The same; for the administration it must give a role."""
    access = covering(declared, issuer, claims)
    if access is None or (administers and declared.access[access].role is None):
        return None
    return access


def _all_met(access: Access, claims: Mapping[str, Any]) -> bool:
    return all(_met(claims.get(name), wanted) for name, wanted in access.claims.items())


def _met(told: Any, wanted: str | tuple[str, ...]) -> bool:
    """Whether a claim is, or holds, one of the wanted values."""
    values = told if isinstance(told, list | tuple) else [told]
    accepted = (wanted,) if isinstance(wanted, str) else wanted
    return any(isinstance(value, str) and value in accepted for value in values)


def called(declared: Configuration, issuer: str, claims: Mapping[str, Any]) -> str:
    """What somebody is called here: an account's own name, or a declared user whom `user` names.

    All others of a foreign issuer are called after it, so that two of one name are two people.
    """
    subject = str(claims.get("sub", ""))
    if issuer == LOCAL:
        return subject
    by = declared.issuers.get(issuer)
    named = claims.get(by.user) if by is not None and by.user else None
    if isinstance(named, str) and _NAME.fullmatch(named):
        return named if named in declared.users else f"{issuer}/{named}"
    return f"{issuer}/{_plain(subject)}"


def called_itself(client: str) -> str:
    """What a client of this name is called where it acts in its own."""
    return f"{MACHINES}/{_plain(client)}"


def _plain(subject: str) -> str:
    """A name without anything that means something elsewhere."""
    if _NAME.fullmatch(subject):
        return subject
    return sha256(subject.encode()).hexdigest()[:24]
