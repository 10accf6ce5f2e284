"""Repository of the configuration: reads it, changes it, and records who changed each entry."""

import asyncio
import json
import logging
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from time import time
from typing import Any, TypeVar

from toolbus_common.config import Admin, Configuration, Key
from toolbus_common.config.stored import read_entry
from toolbus_common.config_store.confirmation import confirm, revoke_unused
from toolbus_common.config_store.diff import ADDED, REMOVED, Change, changes, summary_of
from toolbus_common.config_store.drafts import Make, drafted
from toolbus_common.config_store.key_questions import (
    KeyChange,
    ask,
    customer_of,
    key_changes,
    report,
)
from toolbus_common.config_store.literal_secrets import Writer
from toolbus_common.config_store.redacted_view import event_json
from toolbus_common.contracts import ConfigApplied, ConfigChanged, Event, KeyCreated, KeyRevoked
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.errors import (
    BusDownError,
    ConflictError,
    InvalidError,
    StaleError,
    UnknownEntryError,
)
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.topology import ADMIN_PREFIX, CONFIGURATION, KEY_PREFIX, ORIGIN
from toolbus_common.plugins.requests import PluginRequests

log = logging.getLogger(__name__)

ATTEMPTS = 8
HEADER_BYTES = 4096  # reserved for the headers of a message
AT_ONCE = 1 << 20  # characters of events published concurrently

E = TypeVar("E", Key, Admin)
_MODELS: dict[str, type[Key] | type[Admin]] = {KEY_PREFIX: Key, ADMIN_PREFIX: Admin}


@dataclass(frozen=True, slots=True)
class StoredConfiguration:
    """The stored configuration; `by` is the source of its last change.

    `minted` contains the names of keys whose secrets Toolbus generated.
    """

    configuration: Configuration
    revision: int = 0
    by: str = ""
    minted: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Applied:
    """The changes of an applied configuration, and the generated secrets.

    `secrets` maps `<name>` of a key, or `admins.<name>` of an admin key, to its secret.
    """

    changes: tuple[Change, ...]
    revision: int
    secrets: dict[str, str] = field(default_factory=dict, repr=False)


class ConfigRepository:
    """Access to the configuration. `by` is the recorded author of changes.

    The changes of an `operator` also confirm the destinations in the configuration. Requests to
    plugins go through `plugins`; without it, they are made with breakers of their own.
    """

    def __init__(
        self, bus: Bus, bucket: Bucket, events: EventPublisher, by: str, literals: Writer,
        plugins: PluginRequests | None = None, *, operator: bool = False,
    ) -> None:  # fmt: skip
        self.bus = bus
        self.by = by
        self._literals = literals
        self._operator = operator
        self._plugins = plugins
        self._bucket = bucket
        self._events = events

    # -- reading -----------------------------------------------------------------------------

    async def declared(self) -> StoredConfiguration:
        """Return the stored configuration."""
        entry = await self._bucket.get(CONFIGURATION)
        if entry is None or entry.value is None:
            return StoredConfiguration(Configuration(), entry.revision if entry else 0)
        origin, _ = await self._origin()
        return StoredConfiguration(
            _decoded(entry.value),
            entry.revision,
            str(origin.get("by", "unknown")),
            frozenset(origin.get("minted", ())),
        )

    async def own_keys(self) -> dict[str, Key]:
        """Return individually created, changed or revoked keys; they override configured keys."""
        return await self._own(KEY_PREFIX, Key)

    async def own_admins(self) -> dict[str, Admin]:
        """Return the admin keys that were created or revoked individually, by name."""
        return await self._own(ADMIN_PREFIX, Admin)

    async def own_key(self, name: str) -> Key | None:
        """Return a key that was created or changed individually; None without such a key."""
        found, _ = await self.own(KEY_PREFIX, name)
        return found if isinstance(found, Key) else None

    async def own(self, prefix: str, name: str) -> tuple[Key | Admin | None, int]:
        """Return an individually stored key or admin key (or None), and its revision."""
        entry = await self._bucket.get(f"{prefix}{name}")
        if entry is None or entry.value is None:
            return None, entry.revision if entry else 0
        return read_entry(_MODELS[prefix], entry.key, entry.value), entry.revision

    # -- changing ----------------------------------------------------------------------------

    async def plan(self, new: Configuration) -> tuple[list[Change], int]:
        """Return the changes that `apply` would make, and the current revision."""
        now = await self.declared()
        old = now.configuration
        complete = self._literals.complete
        return await asyncio.to_thread(lambda: changes(old, complete(new, old))), now.revision

    async def apply(
        self,
        new: Configuration,
        source: str,
        at: int | None = None,
        named: Configuration | None = None,
    ) -> Applied:
        """Apply a whole configuration atomically. Without changes nothing is written.

        A key without a secret keeps its stored secret, or receives a generated secret. `named` is
        the part that the operator wrote (default: all of it); its destinations are confirmed.
        """
        if not self._operator:
            return await self.change(lambda _old: new, source, at)
        await confirm(self._bucket, named or new)
        # An operator's file declares the plugins themselves, so they are not asked about its keys.
        applied = await self.change(lambda _old: new, source, at, asks=False)
        await revoke_unused(self._bucket, new)
        return applied

    async def change(
        self, make: Make, source: str, at: int | None = None, *, asks: bool = True
    ) -> Applied:
        """Replace the configuration with `make(configuration)`; `at` is the expected revision.

        With `asks`, plugins are asked about changed keys.

        Raises:
            ForbiddenError: a plugin refused a key.
            StaleError: the current revision is not `at`.
            ConflictError: concurrent writes kept conflicting.

        """
        own = {*await self.own_keys()}, {*await self.own_admins()}
        for _ in range(ATTEMPTS):
            now = await self.declared()
            if at not in (None, now.revision):
                raise StaleError(
                    f"The configuration is at revision {now.revision}, no longer at {at}; nothing "
                    "was changed. Read it again, then repeat the change."
                )
            # The work takes long for thousands of keys, and it would delay calls on the event loop.
            draft = await asyncio.to_thread(drafted, make, now.configuration, self._literals, *own)
            if not draft.changes and now.revision:
                await self._note_origin(source)
                return Applied((), now.revision)
            changed: list[KeyChange] = []
            if asks:
                changed = key_changes(draft.changes, now.configuration, draft.whole)
                await self.ask(changed, now.configuration)
            revision = await self._swap(draft.whole, now.revision)
            if revision is not None:
                gone = now.configuration.keys.keys() - draft.whole.keys.keys()
                await self._note_origin(source, draft.keys.keys(), gone | draft.given)
                await self._record_applied(draft.changes, now.configuration, draft.whole, revision)
                await self.report(changed, now.configuration)
                made = draft.keys | {f"admins.{name}": each for name, each in draft.admins.items()}
                return Applied(draft.changes, revision, made)
        raise _busy()

    async def ask(self, changed: Iterable[KeyChange], configuration: Configuration) -> None:
        """Ask plugins about changes of keys, before they are stored.

        Raises `ForbiddenError` if one refuses.
        """
        await ask(self._asking(configuration), changed, self.by)

    async def report(self, changed: Iterable[KeyChange], configuration: Configuration) -> None:
        """Tell plugins about revoked keys, after they were stored."""
        await report(self._asking(configuration), changed, self.by)

    def _asking(self, configuration: Configuration) -> PluginRequests:
        return self._plugins or PluginRequests(self.bus, lambda: configuration.plugins)

    async def put_own(self, prefix: str, name: str, entry: Key | Admin, last: int) -> bool:
        """Store an individual key if its revision is `last`; return whether it was stored."""
        return await self._bucket.swap(f"{prefix}{name}", _encoded(entry), last) is not None

    async def drop_own(self, prefix: str, name: str) -> None:
        """Delete an individually stored key. The configured key of this name applies again."""
        await self._bucket.delete(f"{prefix}{name}")

    async def replace_secret(self, name: str, secret_hash: str) -> None:
        """Replace the secret of a configured key. Raises `UnknownEntryError`."""
        for _ in range(ATTEMPTS):
            now = await self.declared()
            keys = now.configuration.keys
            if name not in keys:
                raise UnknownEntryError(
                    f"The key '{name}' is no longer configured; 'toolbus keys list' lists all keys."
                )
            key = keys[name].model_copy(update={"secret_hash": secret_hash})
            new = now.configuration.model_copy(update={"keys": {**keys, name: key}})
            revision = await self._swap(new, now.revision)
            if revision is not None:
                self.record_change("keys", name, keys[name], key, revision)
                return
        raise _busy()

    async def _swap(self, new: Configuration, last: int) -> int | None:
        """Write a configuration over revision `last`; return None after a concurrent write."""
        value, maximum = _encoded(new), self.bus.max_bytes - HEADER_BYTES
        if len(value) > maximum:
            raise InvalidError(
                f"The configuration has {len(value):,} bytes, more than the {maximum:,} of a NATS "
                "message; nothing was applied. Configure fewer keys and create the others with "
                "'toolbus keys create', or raise NATS' max_payload."
            )
        if self._events.full:
            raise BusDownError(
                "The audit outbox is full, so the change cannot be recorded and was not made. "
                "Retry when NATS is reachable."
            )
        return await self._bucket.swap(CONFIGURATION, value, last)

    async def _own(self, prefix: str, model: type[E]) -> dict[str, E]:
        return {
            each.key.removeprefix(prefix): read_entry(model, each.key, each.value)
            for each in await self._bucket.present(f"{prefix}>")
            if each.value is not None
        }

    # -- recording ---------------------------------------------------------------------------

    def record_created(self, name: str, key: Key, configuration: Configuration) -> None:
        """Publish the event that a key was created or received a new secret."""
        customer = customer_of(key, configuration)
        self.record(
            KeyCreated(id=_id("created"), at=time(), customer=customer, key=name, by=self.by)
        )

    def record_revoked(self, name: str, key: Key, configuration: Configuration) -> None:
        """Publish the event that a key was revoked."""
        customer = customer_of(key, configuration)
        self.record(
            KeyRevoked(id=_id("revoked"), at=time(), customer=customer, key=name, by=self.by)
        )

    def record_change(self, kind: str, name: str, old: Any, new: Any, revision: int = 0) -> None:
        """Publish the event that one entry was changed."""
        self.record(self._changed(kind, name, _dumped(old), _dumped(new), revision))

    def record(self, event: Event) -> None:
        """Publish an event. While NATS is unavailable, it is stored in the outbox."""
        self._events.publish(event)

    async def delivered(self) -> None:
        """Wait until all events are in the stream or in the outbox."""
        await self._events.delivered()

    async def _record_applied(
        self, different: Iterable[Change], old: Configuration, new: Configuration, revision: int
    ) -> None:
        self.record(
            ConfigApplied(
                id=_id("applied"), at=time(), customer=DEFAULT_CUSTOMER,
                revision=revision, by=self.by, changes=summary_of(different),
            )
        )  # fmt: skip
        for change in different:
            if change.section == "keys" and change.sign == ADDED:
                self.record_created(change.name, new.keys[change.name], new)
            elif change.section == "keys" and change.sign == REMOVED:
                self.record_revoked(change.name, old.keys[change.name], old)
        await self._record_each(different, old, new, revision)
        await self._events.delivered()

    async def _record_each(
        self, different: Iterable[Change], old: Configuration, new: Configuration, revision: int
    ) -> None:
        """Publish an event per entry; return when all are in the stream or the outbox."""
        before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
        waiting: list[asyncio.Future[None]] = []
        size = 0
        for change in different:
            kind, name = change.section, change.name
            event = self._changed(
                kind, name, before[kind].get(name), after[kind].get(name), revision
            )
            waiting.append(self._events.publish_durable(event))
            size += len(event.before) + len(event.after)
            if size > AT_ONCE:
                await asyncio.gather(*waiting, return_exceptions=True)
                waiting, size = [], 0
        await asyncio.gather(*waiting, return_exceptions=True)

    def _changed(self, kind: str, name: str, old: Any, new: Any, revision: int) -> ConfigChanged:
        return ConfigChanged(
            id=_id("changed"), at=time(), customer=DEFAULT_CUSTOMER, kind=kind, name=name,
            by=self.by,
            revision=revision, before=event_json(old), after=event_json(new),
        )  # fmt: skip

    async def _origin(self) -> tuple[dict[str, Any], int]:
        entry = await self._bucket.get(ORIGIN)
        if entry is None or entry.value is None:
            return {}, entry.revision if entry else 0
        return dict(json.loads(entry.value)), entry.revision

    async def _note_origin(
        self, source: str, minted: Iterable[str] = (), others: Iterable[str] = ()
    ) -> None:
        """Store the source of the change and the names of keys with generated secrets."""
        for _ in range(ATTEMPTS):
            before, last = await self._origin()
            known = {*before.get("minted", ()), *minted}.difference(others)
            origin = {"by": source, "minted": sorted(known)}
            if before == origin:
                return
            if await self._bucket.swap(ORIGIN, json.dumps(origin).encode(), last) is not None:
                return
        log.warning("config.origin_not_stored", extra={"by": source})


def _busy() -> ConflictError:
    return ConflictError(
        "Concurrent changes of the configuration kept conflicting; nothing was changed. Retry."
    )


@lru_cache(maxsize=2)
def _decoded(value: bytes) -> Configuration:
    return read_entry(Configuration, CONFIGURATION, value)


def _dumped(entry: Key | Admin | None) -> Any:
    return entry.model_dump(mode="json") if entry is not None else None


def _encoded(entry: Configuration | Key | Admin) -> bytes:
    """Return JSON without defaults. Defaults would triple the size of a large configuration."""
    return entry.model_dump_json(exclude_defaults=True).encode()


def _id(what: str) -> str:
    return f"{secrets.token_hex(10)}.{what}"
