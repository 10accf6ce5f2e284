"""Individual changes of keys and admin keys: create, replace, rotate, revoke.

Each changed key is stored as a separate entry, which overrides the configuration.
"""

import re
import secrets
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from toolbus_common.config import Admin, Configuration, Key, KeyTerms
from toolbus_common.config_store.drafts import hashed, new_secret
from toolbus_common.config_store.key_questions import key_change
from toolbus_common.config_store.repository import ATTEMPTS, ConfigRepository
from toolbus_common.errors import ConflictError, InvalidConfigurationError, UnknownEntryError
from toolbus_common.nats.topology import ADMIN_PREFIX, KEY_PREFIX

CONSOLE_SESSION = timedelta(hours=12)
_CONSOLE = "console-"  # begins the names of the admin keys of sign-in links


async def create_key(repository: ConfigRepository, name: str, terms: KeyTerms) -> str:
    """Create a key and return its secret. Only the hash of the secret is stored."""
    configuration = (await repository.declared()).configuration
    check_links(terms, configuration)
    secret = new_secret(name)
    key = Key(**_fields(terms), secret_hash=hashed(secret))
    await _create(repository, KEY_PREFIX, name, key, configuration)
    repository.record_created(name, key, configuration)
    repository.record_change("keys", name, None, key)
    return secret


async def replace_key(repository: ConfigRepository, name: str, terms: KeyTerms) -> None:
    """Replace the terms of a key. The secret and the revocation of the key do not change."""
    now = await repository.declared()
    configuration = now.configuration
    check_links(terms, configuration)
    for _ in range(ATTEMPTS):
        old, last = await _key(repository, name, configuration)
        if name in configuration.keys and old == configuration.keys[name]:
            await repository.change(
                lambda configuration: _with_terms(configuration, name, terms), now.by
            )
            return
        new = Key(**_fields(terms), secret_hash=old.secret_hash, revoked=old.revoked)
        await repository.ask([key_change(name, old, new, configuration)], configuration)
        if await repository.put_own(KEY_PREFIX, name, new, last):
            repository.record_change("keys", name, old, new)
            return
    raise _busy("key", name)


async def revoke_key(repository: ConfigRepository, name: str) -> None:
    """Revoke a key. All services apply the change immediately. The function is idempotent."""
    configuration = (await repository.declared()).configuration
    for _ in range(ATTEMPTS):
        old, last = await _key(repository, name, configuration)
        if old.revoked:
            return
        ended = old.model_copy(update={"revoked": True})
        if await repository.put_own(KEY_PREFIX, name, ended, last):
            repository.record_revoked(name, old, configuration)
            repository.record_change("keys", name, old, ended)
            await repository.report([key_change(name, old, ended, configuration)], configuration)
            return
    raise _busy("key", name)


async def rotate_key(repository: ConfigRepository, name: str) -> str:
    """Replace the secret of a key and return the new secret. A revoked key becomes valid again."""
    now = await repository.declared()
    secret = new_secret(name)
    for _ in range(ATTEMPTS):
        key, last = await _key(repository, name, now.configuration)
        configured = now.configuration.keys.get(name)
        if configured is not None and name not in now.minted:
            raise ConflictError(
                f"The secret of '{name}' is set in its configuration file; change it there."
            )
        live = key.model_copy(update={"secret_hash": hashed(secret), "revoked": False})
        await repository.ask([key_change(name, key, live, now.configuration)], now.configuration)
        if configured is not None and key == configured.model_copy(update={"revoked": key.revoked}):
            await repository.replace_secret(name, hashed(secret))
            await repository.drop_own(KEY_PREFIX, name)
        elif not await repository.put_own(KEY_PREFIX, name, live, last):
            continue
        else:
            repository.record_change("keys", name, key, live)
        repository.record_created(name, live, now.configuration)
        return secret
    raise _busy("key", name)


async def create_admin(repository: ConfigRepository, name: str, admin: Admin) -> str:
    """Create an admin key and return its secret. Only the hash of the secret is stored."""
    configuration = (await repository.declared()).configuration
    secret = new_secret(name, "admin")
    made = admin.model_copy(update={"secret_hash": hashed(secret), "revoked": False})
    await _create(repository, ADMIN_PREFIX, name, made, configuration)
    repository.record_change("admins", name, None, made)
    return secret


async def create_console_admin(repository: ConfigRepository, person: str) -> str:
    """Create the admin key of a sign-in link of the console, and return its secret.

    The key has the role admin and expires when the browser's session does. Earlier keys of links
    are deleted once they have expired or were revoked.
    """
    now = datetime.now(UTC)
    for name, old in (await repository.own_admins()).items():
        if name.startswith(_CONSOLE) and not old.live(now.timestamp()):
            await repository.drop_own(ADMIN_PREFIX, name)
    person = re.sub("[^A-Za-z0-9]", "", person)[:14] or "operator"
    expires = (now + CONSOLE_SESSION).strftime("%Y-%m-%dT%H:%MZ")
    admin = Admin.model_validate({"role": "admin", "expires": expires})
    return await create_admin(repository, f"{_CONSOLE}{person}-{secrets.token_hex(3)}", admin)


async def revoke_admin(repository: ConfigRepository, name: str) -> None:
    """Revoke an admin key. All services apply the change immediately. Idempotent."""
    configuration = (await repository.declared()).configuration
    for _ in range(ATTEMPTS):
        own, last = await repository.own(ADMIN_PREFIX, name)
        old = own or configuration.admins.get(name)
        if old is None:
            raise _unknown("admin", name)
        if old.revoked:
            return
        ended = old.model_copy(update={"revoked": True})
        if await repository.put_own(ADMIN_PREFIX, name, ended, last):
            repository.record_change("admins", name, old, ended)
            await repository.report([key_change(name, old, ended, configuration)], configuration)
            return
    raise _busy("admin", name)


def check_links(terms: KeyTerms, configuration: Configuration) -> None:
    """Raise `InvalidConfigurationError` if a team, user or group does not exist."""
    links: list[tuple[str, str, Collection[str]]] = [
        ("team", terms.team, configuration.teams),
        ("user", terms.user, configuration.users),
    ]
    links += [("group", name, configuration.groups) for name in terms.groups]
    for noun, name, known in links:
        if name and name not in known:
            raise InvalidConfigurationError(
                f"There is no {noun} '{name}'; 'toolbus get {noun}s' lists them."
            )


async def _create(
    repository: ConfigRepository,
    prefix: str,
    name: str,
    entry: Key | Admin,
    configuration: Configuration,
) -> None:
    noun = prefix.removesuffix(".")
    known, last = await repository.own(prefix, name)
    exists = known is not None or name in getattr(configuration, f"{noun}s")
    if not exists:
        await repository.ask([key_change(name, None, entry, configuration)], configuration)
    if exists or not await repository.put_own(prefix, name, entry, last):
        if noun == "key":
            fix = f"'toolbus keys rotate {name}' replaces its secret"
            raise ConflictError(f"The key '{name}' already exists; {fix}.")
        raise ConflictError(f"The admin key '{name}' already exists; choose another name.")


async def _key(
    repository: ConfigRepository, name: str, configuration: Configuration
) -> tuple[Key, int]:
    """Return the effective key, and the revision of its separate entry (0 without an entry)."""
    own, last = await repository.own(KEY_PREFIX, name)
    found = own or configuration.keys.get(name)
    if found is None:
        raise _unknown("key", name)
    return cast("Key", found), last


def _with_terms(configuration: Configuration, name: str, terms: KeyTerms) -> Configuration:
    if name not in configuration.keys:
        raise _unknown("key", name)
    old = configuration.keys[name]
    key = Key(**_fields(terms), secret_hash=old.secret_hash, revoked=old.revoked)
    return configuration.model_copy(update={"keys": {**configuration.keys, name: key}})


def _fields(terms: KeyTerms) -> dict[str, Any]:
    return {field: getattr(terms, field) for field in KeyTerms.model_fields}


def _unknown(noun: str, name: str) -> UnknownEntryError:
    return UnknownEntryError(f"There is no {noun} '{name}'; 'toolbus {noun}s list' lists them.")


def _busy(noun: str, name: str) -> ConflictError:
    return ConflictError(
        f"Concurrent changes of the {noun} '{name}' kept conflicting; nothing was changed. Retry."
    )
