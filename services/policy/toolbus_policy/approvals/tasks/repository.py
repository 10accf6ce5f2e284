"""The book of deferred calls: a bucket that only policy writes, one entry a task.

Each replica follows it, to know what is to be done and to hear of ends; what is decided upon is
read from the bucket itself, and every change is a compare-and-swap.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from toolbus_common.nats.kv_bucket import Bucket, Change
from toolbus_common.nats.sealed_records import Records
from toolbus_policy.approvals.tasks.model import Deferred, Stage

_decode = msgspec.json.Decoder(Deferred).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Entry:
    """A deferred call and its revision. In memory it is without the call and without its result."""

    task: Deferred
    revision: int


class TaskBook:
    """The deferred calls as this replica knows them."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._bucket: Bucket
        self._known: dict[str, Entry] = {}
        self._of_key: Counter[str] = Counter()
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self.on_change: Callable[[], None] = lambda: None

    def open(self, bucket: Bucket) -> None:
        """Where changes are written."""
        self._bucket = bucket

    def hear(self, change: Change | None) -> None:
        """Take one change of the bucket."""
        change = self._records.opened(change)
        if change is None:
            return
        if change.value is None:
            self._drop(change.key)
        else:
            self._take(Entry(_decode(change.value), change.revision))

    def every(self) -> Iterator[Deferred]:
        """All that is known, as it is now."""
        return iter([entry.task for entry in self._known.values()])

    def of_key(self, key: str) -> int:
        """How many a key has."""
        return self._of_key[key]

    async def whole(self, task: str) -> Entry | None:
        """The entry as the bucket has it. Raises `BusDownError`."""
        found = await self._bucket.get(task)
        if found is None or found.value is None:
            return None
        entry = Entry(_decode(self._records.open(task, found.value)), found.revision)
        self._take(entry)
        return entry

    async def put(self, task: Deferred, over: Entry | None) -> Entry | None:
        """Write over what is known; None when somebody was faster. Raises `BusDownError`."""
        sealed = self._records.seal(task.id, _encode(task))
        revision = await self._bucket.swap(task.id, sealed, over.revision if over else 0)
        if revision is None:
            return None
        entry = Entry(task, revision)
        self._take(entry)
        return entry

    async def forget(self, task: str) -> None:
        """Keep an entry no longer."""
        await self._bucket.delete(task)
        self._drop(task)

    async def until_ended(self, task: str, seconds: float) -> None:
        """Wait for a task's end, at most so long."""
        known = self._known.get(task)
        if known is not None and known.task.stage is Stage.ENDED:
            return
        heard: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(task, set())
        waiting.add(heard)
        try:
            await asyncio.wait([heard], timeout=seconds)
        finally:
            waiting.discard(heard)
            if not waiting:
                self._waiting.pop(task, None)

    def _drop(self, task: str) -> None:
        before = self._known.pop(task, None)
        if before is not None:
            self._of_key[before.task.key] -= 1
            self._of_key += Counter()  # forgets who has none

    def _take(self, entry: Entry) -> None:
        task = entry.task
        before = self._known.get(task.id)
        if before is not None and before.revision >= entry.revision:
            return
        if before is None:
            self._of_key[task.key] += 1
        self._known[task.id] = Entry(replace(task, call="", ending=b""), entry.revision)
        self.on_change()
        if task.stage is Stage.ENDED:
            for heard in self._waiting.get(task.id, ()):
                if not heard.done():
                    heard.set_result(None)
