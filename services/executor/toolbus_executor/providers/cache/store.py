"""Store of cached responses: encrypted, shared by all replicas, limited for each customer."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic, time

import msgspec

from toolbus_common.concurrency import Tasks, end
from toolbus_common.config import ResponseCache
from toolbus_common.crypto.aead import DecryptionError
from toolbus_common.errors import ToolbusError, UnavailableError
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.object_store import Objects
from toolbus_common.privacy.key_store import PersonKeys
from toolbus_common.privacy.person_key import PersonKey
from toolbus_executor.providers.cache.index import Index
from toolbus_executor.providers.cache.records import (
    Comparison,
    Entry,
    Purge,
    cipher,
    customer_name,
    decode_comparison,
    decode_response,
    encode,
)
from toolbus_executor.providers.usage import Response

log = logging.getLogger(__name__)

READ_SECONDS = 1.0  # afterwards the request is sent to the provider
START_SECONDS = 10.0
FIRST_READ_SECONDS = 5.0  # after the start; until then requests wait for the index
CONCURRENT_REMOVALS = 16
PAUSE_SECONDS = 1.0
MAX_WRITING = 32 << 20  # bytes of responses that are being stored


@dataclass(frozen=True, slots=True)
class Found:
    """A response of the cache. `age` is its age in seconds."""

    response: Response
    age: float


@dataclass(frozen=True, slots=True)
class SealedComparison:
    """The encrypted comparison of an entry, and the keys to decrypt it in any thread."""

    name: str
    entry: Entry
    customer: PersonKey
    owner: PersonKey

    def opened(self) -> Comparison | None:
        """Return the comparison; None if it cannot be decrypted."""
        try:
            aead = cipher(self.customer, self.owner)
            return decode_comparison(aead.open(self.entry.sealed, f"{self.name} text".encode()))
        except (DecryptionError, msgspec.MsgspecError):
            return None


@dataclass(frozen=True, slots=True)
class NewEntry:
    """A response to store. `owner` is the name of the person's key."""

    name: str
    entry: Entry
    owner: str
    response: Response
    comparison: Comparison | None
    limits: ResponseCache


class CacheStore:
    """The cached responses of all providers. Nothing is read before `start` is called.

    The index of all entries is in memory, so a missing entry costs no request on the bus. An entry
    that this replica is still storing can be read already.
    """

    def __init__(
        self,
        people: PersonKeys,
        open_bucket: Callable[[], Awaitable[Bucket]],
        open_objects: Callable[[], Awaitable[Objects]],
    ) -> None:
        self.index = Index()
        self._people = people
        self._open_bucket, self._open_objects = open_bucket, open_objects
        self._follower: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()  # the index is complete
        self._first_read_until = 0.0  # `monotonic`
        self._bucket: Bucket
        self._objects: Objects
        self._writing: dict[str, tuple[Entry, Response]] = {}
        self._writing_bytes = 0
        self._tasks = Tasks()

    async def is_ready(self) -> bool:
        """Return whether the index is complete. Wait for it during the first seconds only."""
        if not self._ready.is_set() and (left := self._first_read_until - monotonic()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._ready.wait()
        return self._ready.is_set()

    def start(self) -> None:
        """Start to follow the bucket, if it is not followed yet."""
        if self._follower is None:
            self._first_read_until = monotonic() + FIRST_READ_SECONDS
            self._follower = asyncio.create_task(self._follow())

    async def wait_until_ready(self) -> None:
        """Wait until the index is complete. Raises `UnavailableError`."""
        self.start()
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._ready.wait()
        except TimeoutError as error:
            raise UnavailableError("The cache of responses cannot be read now; retry.") from error

    async def close(self) -> None:
        """Finish the writes, and stop."""
        await self._tasks.finish(PAUSE_SECONDS)
        await self._tasks.end()
        if self._follower is not None:
            await end(self._follower)

    # -- reading -------------------------------------------------------------------------------

    async def customer_key(self, customer: str) -> PersonKey:
        """Return the key of a customer; it is created if it does not exist.

        Raises `BusDownError`.
        """
        name = customer_name(customer)
        found = self._people.known(name)
        if found is None:
            await self._people.learn([name])
            found = self._people.known(name)
        if found is None:
            raise UnavailableError(f"The key of the customer '{customer}' was erased; retry.")
        return found

    def fresh(self, name: str, ttl: float) -> Entry | None:
        """Return an entry that is not older than `ttl` seconds; None if there is none."""
        writing = self._writing.get(name)
        entry = writing[0] if writing is not None else self.index.get(name)
        if entry is None or time() - entry.at >= ttl:
            return None
        return None if writing is not None and self.index.is_purged(name, entry) else entry

    async def read(self, name: str, ttl: float) -> Found | None:
        """Return a cached response. Return None if it is missing, expired, erased or damaged."""
        entry = self.fresh(name, ttl)
        if entry is None:
            return None
        age = max(0.0, time() - entry.at)
        if (writing := self._writing.get(name)) is not None:
            return Found(writing[1], age)
        try:
            async with asyncio.timeout(READ_SECONDS):
                sealed = await self._objects.get(name)
        except (ToolbusError, TimeoutError) as error:
            log.warning("model_cache.not_read", extra={"reason": str(error)})
            return None
        response = self._opened_response(name, entry, sealed or b"")
        if response is None:
            self.index.drop(name)
            return None
        return Found(response, age)

    def sealed_comparison(self, name: str) -> SealedComparison | None:
        """Return the comparison of an entry with its keys; None if one of them was erased."""
        entry = self.index.get(name)
        keys = self._keys(entry) if entry is not None else None
        return None if entry is None or keys is None else SealedComparison(name, entry, *keys)

    # -- writing -------------------------------------------------------------------------------

    def write(self, new: NewEntry) -> None:
        """Store a response in the background."""
        size = len(new.response.body)
        if self._writing_bytes + size > MAX_WRITING or new.name in self._writing:
            return
        self._writing[new.name] = new.entry, new.response
        self._writing_bytes += size
        self._tasks.start(self._write(new))

    async def purge(self, purge: Purge) -> int:
        """Remove the selected entries, and those of requests in progress. Return their number.

        After the return, the removed entries are not used. Their content is deleted in the
        background.

        Raises `ToolbusError`.
        """
        await self.wait_until_ready()
        await self._tasks.finish(PAUSE_SECONDS)
        selected = self.index.select(purge)
        try:
            # From now on, each replica ignores the entries of requests that began before.
            revision = await self._bucket.put(purge.name, encode(purge))
        except ToolbusError:
            raise
        except Exception as error:
            raise UnavailableError(f"The cache could not be purged ({error}); retry.") from error
        names = {*selected, *self.index.purge(revision, purge)}
        names.difference_update(name for name in selected if self.index.get(name) is not None)
        if names:
            self._tasks.start(self._remove_all(names))
        return len(names)

    async def _remove_all(self, names: Iterable[str]) -> None:
        """Delete purged entries in batches. After an error, the rest expires and is not used."""
        left = iter(names)

        async def remove() -> None:
            for name in left:
                await self._delete(name)

        try:
            await asyncio.gather(*(remove() for _ in range(CONCURRENT_REMOVALS)))
        except Exception as error:  # noqa: BLE001 - logged; the entries are not used any more
            log.warning("model_cache.not_removed", extra={"reason": str(error)})

    async def _write(self, new: NewEntry) -> None:
        try:
            await self._store(new)
        except Exception as error:  # noqa: BLE001 - logged; the response was returned already
            log.warning("model_cache.not_written", extra={"reason": str(error)})
        finally:
            del self._writing[new.name]
            self._writing_bytes -= len(new.response.body)

    async def _store(self, new: NewEntry) -> None:
        name, limits = new.name, new.limits
        customer = await self.customer_key(new.entry.customer)
        await self._people.learn([new.owner])
        person = self._people.known(new.owner)
        if person is None:
            return
        aead = cipher(customer, person)
        sealed = aead.seal(encode(new.response), name.encode())
        compared = b""
        if new.comparison is not None:
            compared = aead.seal(encode(new.comparison), f"{name} text".encode())
        entry = msgspec.structs.replace(
            new.entry, owner=person.pseudonym, size=len(sealed) + len(compared), sealed=compared
        )
        group = entry.customer, entry.provider
        if entry.size > limits.max_bytes or self.index.is_purged(name, entry):
            return
        entries, max_bytes, oldest = limits.max_entries, limits.max_bytes, time() - limits.ttl
        for old in self.index.excess(group, entry.size, entries, max_bytes, oldest):
            await self._remove(old)
        await self._objects.put(name, sealed)
        await self._bucket.put(name, encode(entry))
        if self.index.is_purged(name, entry):
            await self._remove(name)
            return
        self.index.add(name, entry)

    async def _remove(self, name: str) -> None:
        self.index.drop(name)
        await self._delete(name)

    async def _delete(self, name: str) -> None:
        await self._bucket.delete(name)
        await self._objects.delete(name)

    def _opened_response(self, name: str, entry: Entry, sealed: bytes) -> Response | None:
        keys = self._keys(entry)
        if keys is None:
            return None
        try:
            return decode_response(cipher(*keys).open(sealed, name.encode()))
        except (DecryptionError, msgspec.MsgspecError):
            return None

    def _keys(self, entry: Entry) -> tuple[PersonKey, PersonKey] | None:
        """Return the keys of the customer and of the owner; None if one of them was erased."""
        customer = self._people.known(customer_name(entry.customer))
        owner = self._people.with_pseudonym(entry.owner)
        return None if customer is None or owner is None else (customer, owner)

    async def _follow(self) -> None:
        """Follow the bucket forever. Restart after unexpected errors."""
        while True:
            try:
                self._bucket, self._objects = await self._open_bucket(), await self._open_objects()
                async for change in self._bucket.watch():
                    if change is None:
                        self._ready.set()
                    else:
                        self.index.apply(change)
            except Exception:
                log.exception("model_cache.not_followed")
            self._ready.clear()
            await asyncio.sleep(PAUSE_SECONDS)
            self.index.clear()
