"""The configuration that a change would store, with generated secrets (no I/O)."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from toolbus_common.access.config_snapshot import hash_of, key_digest_of
from toolbus_common.config import Admin, Configuration, Key
from toolbus_common.config_store.diff import Change, changes
from toolbus_common.config_store.literal_secrets import Writer

PREFIXES = {"key": "tbk", "admin": "tba"}
Make = Callable[[Configuration], Configuration]


@dataclass(frozen=True, slots=True)
class Draft:
    """The configuration to store. `given` contains the keys whose secret the file sets."""

    whole: Configuration
    changes: tuple[Change, ...]
    keys: dict[str, str] = field(repr=False)
    admins: dict[str, str] = field(repr=False)
    given: set[str]


def new_secret(name: str, kind: str = "key") -> str:
    """Return a new random secret for a key, or for an admin key, of this name."""
    return f"{PREFIXES[kind]}_{name}_{secrets.token_urlsafe(24)}"


def hashed(secret: str) -> str:
    """Return the hash that the configuration stores for a secret."""
    return hash_of(key_digest_of(secret))


def drafted(
    make: Make, old: Configuration, literals: Writer, own_keys: set[str], own_admins: set[str]
) -> Draft:
    """Return what to store instead of `old`. Keys without a secret get one."""
    known = literals.complete(make(old), old)
    keys = _minted("key", known.keys, own_keys)
    admins = _minted("admin", known.admins, own_admins)
    whole = _with_secrets(known, keys, admins)
    given = {
        name
        for name, key in known.keys.items()
        if key.secret_hash not in ("", old.keys[name].secret_hash if name in old.keys else "")
    }
    return Draft(whole, tuple(changes(old, whole)), keys, admins, given)


def _minted(kind: str, entries: Mapping[str, Key | Admin], own: set[str]) -> dict[str, str]:
    bare = [name for name, entry in entries.items() if not entry.secret_hash]
    return {name: new_secret(name, kind) for name in bare if name not in own}


def _with_secrets(
    configuration: Configuration, keys: dict[str, str], admins: dict[str, str]
) -> Configuration:
    made: dict[str, Any] = {"keys": {**configuration.keys}, "admins": {**configuration.admins}}
    for section, minted in (("keys", keys), ("admins", admins)):
        for name, secret in minted.items():
            entry = made[section][name]
            made[section][name] = entry.model_copy(update={"secret_hash": hashed(secret)})
    return configuration.model_copy(update=made)
