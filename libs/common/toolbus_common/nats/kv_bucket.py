"""KV buckets: read, compare-and-set, and watch entries."""

import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError
from nats.js.errors import KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from toolbus_common.errors import BusDownError
from toolbus_common.nats.stream_follower import StreamFollower
from toolbus_common.nats.stream_reader import StreamEntry, last_at_leader, read_on

_KEY = re.compile(r"[-/_=.a-zA-Z0-9]+")


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of a bucket. `value` is None if the entry was deleted.

    `at` is the time of storage in ISO 8601, if it is known.
    """

    key: str
    value: bytes | None
    revision: int
    at: str = ""


class Bucket:
    """One KV bucket."""

    def __init__(
        self, name: str, store: KeyValue, client: Client, on_back: "list[Callable[[], None]]"
    ) -> None:
        self._name = name
        self._store = store
        self._client = client
        self._on_back = on_back
        self._stream = f"KV_{name}"
        self._prefix = f"$KV.{name}."

    async def get(self, key: str) -> Change | None:
        """Return the entry as the leader of the bucket knows it; None if it does not exist.

        Another replica could return an older value. Raises `BusDownError`.
        """
        if not _KEY.fullmatch(key):  # a pattern would match other entries
            return None
        try:
            entry = await last_at_leader(self._client, self._stream, f"{self._prefix}{key}")
        except BusDownError as error:
            raise _not_reached(key, error) from error
        return None if entry is None or entry.gone else self._change(entry)

    async def put(self, key: str, value: bytes) -> int:
        """Write unconditionally, and return the new revision."""
        return await self._store.put(key, value)

    async def swap(self, key: str, value: bytes, last: int) -> int | None:
        """Write if the current revision is `last` (0: the entry must not exist).

        Return the new revision, or None on a conflict. Raises `BusDownError`; in this case it is
        unknown whether the entry was written.
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
        """Delete an entry. Watchers receive a change with the value None."""
        await self._store.delete(key)

    async def present(self, pattern: str = ">") -> list[Change]:
        """Return all entries that match `pattern`. Deleted entries have the value None.

        Raises `BusDownError`.
        """
        found: dict[str, Change] = {}
        subjects = f"{self._prefix}{pattern}"
        async for batch in read_on(self._client, self._stream, 1, subjects):
            self._gather(found, batch)
        return list(found.values())

    async def batches(self, pattern: str = ">") -> AsyncGenerator[list[Change]]:
        """Yield the entries like `present`, in batches. A changed entry is repeated.

        Raises `BusDownError`.
        """
        subjects = f"{self._prefix}{pattern}"
        async for batch in read_on(self._client, self._stream, 1, subjects):
            yield [self._change(entry) for entry in batch]

    async def watch(self) -> AsyncGenerator[Change | None, None]:
        """Yield every current entry, then None, then every later change.

        If the bucket is re-created, everything is yielded again.
        """
        found: dict[str, Change] = {}
        complete = False
        follower = StreamFollower(self._client, self._stream, watched(self._name))
        async with aclosing(follower.run(self._on_back)) as batches:
            async for batch in batches:
                if batch is None:
                    for change in found.values():
                        yield change
                    found, complete = {}, True
                    yield None
                elif complete:
                    for entry in batch:
                        yield self._change(entry)
                else:
                    self._gather(found, batch)

    def _gather(self, found: dict[str, Change], batch: list[StreamEntry]) -> None:
        """Add the newest change of each entry, in the order of writing."""
        for entry in batch:
            change = self._change(entry)
            found.pop(change.key, None)
            found[change.key] = change

    def _change(self, entry: StreamEntry) -> Change:
        key = entry.subject.removeprefix(self._prefix)
        return Change(key, None if entry.gone else entry.data, entry.sequence, entry.at)


def watched(bucket: str) -> str:
    """Return the pattern of the subjects on which the server republishes changes of a bucket."""
    return f"tb.kv.{bucket}.>"


def _not_reached(key: str, error: Exception) -> BusDownError:
    return BusDownError(f"The entry '{key}' is not reachable on the bus ({error}); retry.")
