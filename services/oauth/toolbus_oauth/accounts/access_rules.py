"""Access rules that match a person's claims, and user names; without I/O."""

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from toolbus_common.config import LOCAL, MACHINES, Access, Configuration

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")


def matching_rule(config: Configuration, issuer: str, claims: Mapping[str, Any]) -> str | None:
    """Return the name of the first access rule that matches an issuer's claims, or None."""
    for name, access in config.access.items():
        if access.issuer == issuer and _claims_match(access, claims):
            return name
    return None


def entitled_rule(
    config: Configuration, issuer: str, claims: Mapping[str, Any], *, administers: bool
) -> str | None:
    """Return the name of the first matching access rule, or None.

    With `administers`, the result is None if that rule has no role.
    """
    access = matching_rule(config, issuer, claims)
    if access is None or (administers and config.access[access].role is None):
        return None
    return access


def _claims_match(access: Access, claims: Mapping[str, Any]) -> bool:
    return all(_claim_matches(claims.get(name), wanted) for name, wanted in access.claims.items())


def _claim_matches(claim: Any, wanted: str | tuple[str, ...]) -> bool:
    """Return whether a claim equals or contains one of the wanted values."""
    values = claim if isinstance(claim, list | tuple) else [claim]
    accepted = (wanted,) if isinstance(wanted, str) else wanted
    return any(isinstance(value, str) and value in accepted for value in values)


def user_name(config: Configuration, issuer: str, claims: Mapping[str, Any]) -> str:
    """Return a person's user name.

    For a local account, it is the name of the account. For an external issuer, it is the value of
    the claim that `user` of the issuer names, if a user with that name is configured. Other names
    get the issuer's name as a prefix, because two issuers can use one name.
    """
    subject = str(claims.get("sub", ""))
    if issuer == LOCAL:
        return subject
    provider = config.issuers.get(issuer)
    named = claims.get(provider.user) if provider is not None and provider.user else None
    if isinstance(named, str) and _NAME.fullmatch(named):
        return named if named in config.users else f"{issuer}/{named}"
    return f"{issuer}/{_plain(subject)}"


def machine_name(client: str) -> str:
    """Return the user name of a client that acts for itself."""
    return f"{MACHINES}/{_plain(client)}"


def _plain(subject: str) -> str:
    """Return the subject if it is a valid name, else a digest of the subject."""
    if _NAME.fullmatch(subject):
        return subject
    return sha256(subject.encode()).hexdigest()[:24]
