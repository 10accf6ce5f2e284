"""A bucket of the bus: entries that are read, written with compare-and-set, and watched."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError
from nats.js.errors import InvalidKeyError, KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from toolbus_common.errors import BusDownError

UNHEARD_SECONDS = 1.0  # then the server forgets a watcher: it keeps a thousand of a bucket


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of a bucket, now. `value` is None when it was deleted."""

    key: str
    value: bytes | None
    revision: int


class Bucket:
    """A KV bucket: read, written with compare-and-set, and watched."""

    def __init__(self, store: KeyValue, on_back: "list[Callable[[], None]]") -> None:
        self._store = store
        self._on_back = on_back

    async def get(self, key: str) -> Change | None:
        """The entry, or None. Raises `BusDownError`."""
        try:
            entry = await self._store.get(key)
        except (KeyNotFoundError, InvalidKeyError):
            return None
        except (NatsError, JetStreamError, TimeoutError) as error:
            raise _not_reached(key, error) from error
        return Change(key, entry.value, entry.revision or 0)

    async def put(self, key: str, value: bytes) -> int:
        """Write, whatever is there; the new revision."""
        return await self._store.put(key, value)

    async def swap(self, key: str, value: bytes, last: int) -> int | None:
        """Write only over revision `last` (0: only if absent); None when someone was faster.

        Raises `BusDownError`; the entry may have been written then.
        """
        try:
            if last == 0:
                return await self._store.create(key, value)
            return await self._store.update(key, value, last=last)
        except KeyWrongLastSequenceError:
            return None
        except (NatsError, JetStreamError, TimeoutError) as error:
            raise _not_reached(key, error) from error

    async def delete(self, key: str) -> None:
        """Remove an entry; watchers hear of it."""
        await self._store.delete(key)

    async def present(self, pattern: str = ">") -> list[Change]:
        """Every entry there is now, also of those that were deleted, whose value is None."""
        found: list[Change] = []
        async with aclosing(self.watch(pattern)) as changes:
            async for change in changes:
                if change is None:
                    break
                found.append(change)
        return found

    async def watch(self, pattern: str = ">") -> AsyncGenerator[Change | None, None]:
        """Every present entry, then None, then every change as it happens.

        When the connection comes back all of this begins anew: a server that restarted has
        forgotten its watchers, and a change may have been made meanwhile.
        """
        while True:
            watcher = await self._store.watch(pattern, inactive_threshold=UNHEARD_SECONDS)
            tasks: set[asyncio.Task[None]] = set()

            def again(watcher: Any = watcher, tasks: set[asyncio.Task[None]] = tasks) -> None:
                tasks.add(asyncio.ensure_future(watcher.stop()))

            self._on_back.append(again)
            try:
                async for change in _marked(watcher):
                    yield change
            finally:
                self._on_back.remove(again)
                if not tasks:
                    await watcher.stop()  # type: ignore[no-untyped-call]


async def _marked(watcher: Any) -> AsyncGenerator[Change | None, None]:
    """What a watcher sees, with None where the present entries end.

    The client takes a bucket for empty when its entries were sent but have yet to arrive.
    """
    begun = early = False
    async for entry in watcher:
        if entry is None and not begun and await _has_entries(watcher):
            early = True
            continue
        begun = True
        yield _change(entry)
        if early and entry.delta == 0:
            early = False
            yield None


async def _has_entries(watcher: Any) -> bool:
    """Whether the server has sent this watcher anything, or is about to."""
    told = await watcher._sub.consumer_info()  # noqa: SLF001 - it has no other way
    return bool(told.num_pending or told.delivered.consumer_seq)


def _not_reached(key: str, error: Exception) -> BusDownError:
    return BusDownError(f"The entry {key} cannot be reached on the bus ({error}). Retry.")


def _change(entry: KeyValue.Entry | None) -> Change | None:
    if entry is None:
        return None
    gone = entry.operation in ("DEL", "PURGE")
    return Change(entry.key, None if gone else entry.value, entry.revision or 0)
