"""The operator's desk: reads and changes what is declared, and records who changed what."""

import getpass
import json
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from time import time
from typing import Any

from toolbus_cli.difference import ADDED, REMOVED, Change, changes
from toolbus_cli.errors import CommandError
from toolbus_cli.state import State
from toolbus_common.bus import Bucket, Bus
from toolbus_common.contracts import ConfigApplied, Fact, KeyCreated, KeyRevoked
from toolbus_common.declared import Declaration, Key
from toolbus_common.factlane import FactWriter
from toolbus_common.lineage import DEFAULT_SCOPE, lineage_of
from toolbus_common.provision import CONFIG
from toolbus_common.settings import Settings
from toolbus_common.snapshot import DECLARATION, KEY_PREFIX, hash_of, proof_of
from toolbus_common.spool import Spool

ORIGIN = "origin"  # where the declaration came from, and which of its secrets were made here
ATTEMPTS = 8
FACT_SECONDS = 3.0
ROOM_FOR_HEADERS = 4096  # bytes


@dataclass(frozen=True, slots=True)
class Declared:
    """The stored declaration. `by` is empty when there is none yet."""

    declaration: Declaration
    revision: int = 0
    by: str = ""
    minted: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Applied:
    """What an application changed, and the secrets it made, by key: to be shown once."""

    changes: tuple[Change, ...]
    revision: int
    secrets: dict[str, str] = field(default_factory=dict, repr=False)


class Desk:
    """One operator at one bus."""

    def __init__(self, bus: Bus, bucket: Bucket, facts: FactWriter) -> None:
        self.bus = bus
        self._bucket = bucket
        self._facts = facts

    # -- reading -----------------------------------------------------------------------------

    async def declared(self) -> Declared:
        """What is declared now."""
        entry = await self._bucket.get(DECLARATION)
        if entry is None or entry.value is None:
            return Declared(Declaration(), entry.revision if entry else 0)
        origin = await self._origin()
        return Declared(
            Declaration.model_validate_json(entry.value),
            entry.revision,
            str(origin.get("by", "unknown")),
            frozenset(origin.get("minted", ())),
        )

    async def own_keys(self) -> dict[str, Key]:
        """Keys made, changed or revoked one by one; they win over declared ones."""
        found: dict[str, Key] = {}
        async with aclosing(self._bucket.watch(f"{KEY_PREFIX}>")) as entries:
            async for change in entries:
                if change is None:
                    break
                if change.value is not None:
                    name = change.key.removeprefix(KEY_PREFIX)
                    found[name] = Key.model_validate_json(change.value)
        return found

    async def own_key(self, name: str) -> Key | None:
        """The one under this name among them."""
        entry = await self._bucket.get(f"{KEY_PREFIX}{name}")
        return Key.model_validate_json(entry.value) if entry and entry.value else None

    # -- changing ----------------------------------------------------------------------------

    async def plan(self, new: Declaration) -> list[Change]:
        """What applying would change."""
        now = await self.declared()
        return changes(now.declaration, _with_known_secrets(new, now.declaration))

    async def apply(self, new: Declaration, by: str) -> Applied:
        """Make a declaration take effect as a whole; nothing happens when nothing differs.

        A key declared without a secret keeps the one it had, or gets one.
        """
        own = await self.own_keys()
        for _ in range(ATTEMPTS):
            now = await self.declared()
            known = _with_known_secrets(new, now.declaration)
            minted = _minted(known, own)
            complete = _with_secrets(known, minted)
            different = changes(now.declaration, complete)
            if not different and now.revision:
                await self._note_origin(by, now.minted)
                return Applied((), now.revision)
            revision = await self._swap(complete, now.revision)
            if revision is not None:
                kept = {name for name in now.minted | minted.keys() if name in complete.keys}
                kept -= {name for name, key in new.keys.items() if key.secret_hash}
                await self._note_origin(by, kept)
                self._record_applied(different, now.declaration, complete, revision)
                await self._facts.delivered()
                return Applied(tuple(different), revision, minted)
        raise CommandError("Somebody else is changing the configuration; try again.")

    async def put_key(self, name: str, key: Key) -> None:
        """Keep a key of its own under this name."""
        await self._bucket.put(f"{KEY_PREFIX}{name}", _encoded(key))

    async def drop_own_key(self, name: str) -> None:
        """Let the declared key of this name count again."""
        await self._bucket.delete(f"{KEY_PREFIX}{name}")

    async def replace_secret(self, name: str, secret_hash: str) -> None:
        """Give a declared key another secret."""
        for _ in range(ATTEMPTS):
            now = await self.declared()
            keys = now.declaration.keys
            key = keys[name].model_copy(update={"secret_hash": secret_hash})
            new = now.declaration.model_copy(update={"keys": {**keys, name: key}})
            if await self._swap(new, now.revision) is not None:
                return
        raise CommandError("Somebody else is changing the configuration; try again.")

    async def _swap(self, new: Declaration, last: int) -> int | None:
        """Write a declaration over revision `last`; None when someone was faster."""
        value, most = _encoded(new), self.bus.most_bytes - ROOM_FOR_HEADERS
        if len(value) > most:
            raise CommandError(
                f"What is declared takes {len(value):,} bytes and is kept as one entry, for which "
                f"the bus takes {most:,}; nothing was applied. Declare fewer keys and make the "
                "others one by one with 'toolbus keys create', or raise NATS' max_payload."
            )
        return await self._bucket.swap(DECLARATION, value, last)

    # -- recording ---------------------------------------------------------------------------

    def record_created(self, name: str, key: Key, declared: Declaration) -> None:
        """Say that a key exists, or has a new secret."""
        scope = scope_of(key, declared)
        self.record(KeyCreated(id=_id("created"), at=time(), scope=scope, key=name, by=me()))

    def record_revoked(self, name: str, key: Key, declared: Declaration) -> None:
        """Say that a key opens nothing any more."""
        scope = scope_of(key, declared)
        self.record(KeyRevoked(id=_id("revoked"), at=time(), scope=scope, key=name, by=me()))

    def _record_applied(
        self, different: Iterable[Change], old: Declaration, new: Declaration, revision: int
    ) -> None:
        told = {f"{c.section}.{c.name}": c.sign for c in different}
        self.record(
            ConfigApplied(
                id=_id("applied"), at=time(), scope=DEFAULT_SCOPE,
                revision=revision, by=me(), changes=told,
            )
        )  # fmt: skip
        for change in different:
            if change.section == "keys" and change.sign == ADDED:
                self.record_created(change.name, new.keys[change.name], new)
            elif change.section == "keys" and change.sign == REMOVED:
                self.record_revoked(change.name, old.keys[change.name], new)

    def record(self, fact: Fact) -> None:
        """Write a fact; one the stream does not take now is spooled for the next command."""
        self._facts.say(fact)

    async def _origin(self) -> dict[str, Any]:
        entry = await self._bucket.get(ORIGIN)
        if entry is None or entry.value is None:
            return {}
        data: dict[str, Any] = json.loads(entry.value)
        return data

    async def _note_origin(self, by: str, minted: Iterable[str]) -> None:
        origin = {"by": by, "minted": sorted(minted)}
        if await self._origin() != origin:
            await self._bucket.put(ORIGIN, json.dumps(origin).encode())


@asynccontextmanager
async def opened(bus: Bus, state: State) -> AsyncIterator[Desk]:
    """A desk on an open bus; its facts are delivered, or spooled, when it is left."""
    limit = Settings().spool_bytes
    facts = FactWriter(bus.store, Spool(state.root / "spool" / "operator.facts", limit))
    facts.restore()
    try:
        yield Desk(bus, await bus.bucket(CONFIG), facts)
    finally:
        await facts.close(FACT_SECONDS)


def new_secret(name: str) -> str:
    """A secret for a key of this name."""
    return f"tbk_{name}_{secrets.token_urlsafe(24)}"


def hashed(secret: str) -> str:
    """What is stored of a secret."""
    return hash_of(proof_of(secret))


def scope_of(key: Key, declaration: Declaration) -> str:
    """Who pays for a key."""
    return lineage_of("", key, declaration).scope


def me() -> str:
    """Who is at the desk, as the operating system knows them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "operator"


def _with_known_secrets(new: Declaration, old: Declaration) -> Declaration:
    known = {name: key.secret_hash for name, key in old.keys.items() if key.secret_hash}
    keys = {
        name: key
        if key.secret_hash or name not in known
        else key.model_copy(update={"secret_hash": known[name]})
        for name, key in new.keys.items()
    }
    return new.model_copy(update={"keys": keys})


def _minted(declaration: Declaration, own: dict[str, Key]) -> dict[str, str]:
    bare = [name for name, key in declaration.keys.items() if not key.secret_hash]
    return {name: new_secret(name) for name in bare if name not in own}


def _with_secrets(declaration: Declaration, minted: dict[str, str]) -> Declaration:
    keys = dict(declaration.keys)
    for name, secret in minted.items():
        keys[name] = keys[name].model_copy(update={"secret_hash": hashed(secret)})
    return declaration.model_copy(update={"keys": keys})


def _encoded(declared: Declaration | Key) -> bytes:
    """What it says of itself: ten thousand keys' defaults would fill the entry three times over."""
    return declared.model_dump_json(exclude_defaults=True).encode()


def _id(what: str) -> str:
    return f"{secrets.token_hex(10)}.{what}"
