"""Keys and admin keys one by one: made, changed, given a new secret, ended.

Those of the declaration keep their entry there; what is changed here is kept beside it and wins.
"""

from collections.abc import Collection
from typing import Any, cast

from toolbus_common.config import Admin, Configuration, Key, KeyTerms
from toolbus_common.config_store.repository import ATTEMPTS, ConfigRepository, hashed, new_secret
from toolbus_common.errors import ConflictError, FaultyError, UnknownEntryError
from toolbus_common.nats.topology import ADMIN_PREFIX, KEY_PREFIX


async def create_key(desk: ConfigRepository, name: str, terms: KeyTerms) -> str:
    """Make a key; its secret, which nobody will know again."""
    declared = (await desk.declared()).declaration
    check_links(terms, declared)
    secret = new_secret(name)
    key = Key(**_fields(terms), secret_hash=hashed(secret))
    await _begin(desk, KEY_PREFIX, name, key, declared.keys)
    desk.record_created(name, key, declared)
    desk.record_change("keys", name, None, key)
    return secret


async def replace_key(desk: ConfigRepository, name: str, terms: KeyTerms) -> None:
    """Give a key other terms; its secret stays, and so does its end."""
    now = await desk.declared()
    declared = now.declaration
    check_links(terms, declared)
    for _ in range(ATTEMPTS):
        old, last = await _key(desk, name, declared)
        if name in declared.keys and old == declared.keys[name]:
            await desk.change(lambda declared: _with_terms(declared, name, terms), now.by)
            return
        new = Key(**_fields(terms), secret_hash=old.secret_hash, revoked=old.revoked)
        if await desk.put_own(KEY_PREFIX, name, new, last):
            desk.record_change("keys", name, old, new)
            return
    raise _busy("key", name)


async def revoke_key(desk: ConfigRepository, name: str) -> None:
    """End a key, at once and everywhere."""
    declared = (await desk.declared()).declaration
    for _ in range(ATTEMPTS):
        old, last = await _key(desk, name, declared)
        if old.revoked:
            return
        ended = old.model_copy(update={"revoked": True})
        if await desk.put_own(KEY_PREFIX, name, ended, last):
            desk.record_revoked(name, old, declared)
            desk.record_change("keys", name, old, ended)
            return
    raise _busy("key", name)


async def rotate_key(desk: ConfigRepository, name: str) -> str:
    """Give a key a new secret; the old one ends at once. A revoked key lives again."""
    now = await desk.declared()
    secret = new_secret(name)
    for _ in range(ATTEMPTS):
        key, last = await _key(desk, name, now.declaration)
        declared = now.declaration.keys.get(name)
        if declared is not None and name not in now.minted:
            raise ConflictError(
                f"The secret of '{name}' stands in its configuration; change it there."
            )
        live = key.model_copy(update={"secret_hash": hashed(secret), "revoked": False})
        if declared is not None and key == declared.model_copy(update={"revoked": key.revoked}):
            await desk.replace_secret(name, hashed(secret))
            await desk.drop_own_key(name)
        elif not await desk.put_own(KEY_PREFIX, name, live, last):
            continue
        else:
            desk.record_change("keys", name, key, live)
        desk.record_created(name, live, now.declaration)
        return secret
    raise _busy("key", name)


async def create_admin(desk: ConfigRepository, name: str, admin: Admin) -> str:
    """Make an admin key; its secret, which nobody will know again."""
    declared = (await desk.declared()).declaration
    secret = new_secret(name, "admin")
    made = admin.model_copy(update={"secret_hash": hashed(secret), "revoked": False})
    await _begin(desk, ADMIN_PREFIX, name, made, declared.admins)
    desk.record_change("admins", name, None, made)
    return secret


async def revoke_admin(desk: ConfigRepository, name: str) -> None:
    """End an admin key, at once and everywhere."""
    declared = (await desk.declared()).declaration.admins
    for _ in range(ATTEMPTS):
        own, last = await desk.own(ADMIN_PREFIX, name)
        old = own or declared.get(name)
        if old is None:
            raise _unknown("admin", name)
        if old.revoked:
            return
        ended = old.model_copy(update={"revoked": True})
        if await desk.put_own(ADMIN_PREFIX, name, ended, last):
            desk.record_change("admins", name, old, ended)
            return
    raise _busy("admin", name)


def check_links(terms: KeyTerms, declared: Configuration) -> None:
    """Everything a key names must be declared: it would open nothing otherwise."""
    links: list[tuple[str, str, Collection[str]]] = [
        ("team", terms.team, declared.teams),
        ("user", terms.user, declared.users),
    ]
    links += [("group", name, declared.groups) for name in terms.groups]
    for noun, name, known in links:
        if name and name not in known:
            raise FaultyError(f"No {noun} '{name}' is declared; 'toolbus get {noun}s' shows them.")


async def _begin(
    desk: ConfigRepository, prefix: str, name: str, entry: Key | Admin, declared: Collection[str]
) -> None:
    noun = prefix.removesuffix(".")
    known, last = await desk.own(prefix, name)
    if known is not None or name in declared or not await desk.put_own(prefix, name, entry, last):
        mend = f"'toolbus {noun}s rotate {name}' gives it a new secret" if noun == "key" else ""
        raise ConflictError(
            f"There is a key '{name}' already; {mend}."
            if mend
            else f"There is an admin key '{name}' already; take another name."
        )


async def _key(desk: ConfigRepository, name: str, declared: Configuration) -> tuple[Key, int]:
    """The key of a name as it counts now, and the revision of what was made beside."""
    own, last = await desk.own(KEY_PREFIX, name)
    found = own or declared.keys.get(name)
    if found is None:
        raise _unknown("key", name)
    return cast("Key", found), last


def _with_terms(declared: Configuration, name: str, terms: KeyTerms) -> Configuration:
    if name not in declared.keys:
        raise _unknown("key", name)
    old = declared.keys[name]
    key = Key(**_fields(terms), secret_hash=old.secret_hash, revoked=old.revoked)
    return declared.model_copy(update={"keys": {**declared.keys, name: key}})


def _fields(terms: KeyTerms) -> dict[str, Any]:
    return {field: getattr(terms, field) for field in KeyTerms.model_fields}


def _unknown(noun: str, name: str) -> UnknownEntryError:
    return UnknownEntryError(f"There is no {noun} '{name}'; 'toolbus {noun}s list' shows them.")


def _busy(noun: str, name: str) -> ConflictError:
    return ConflictError(f"The {noun} '{name}' is being changed by others all the time; try again.")
