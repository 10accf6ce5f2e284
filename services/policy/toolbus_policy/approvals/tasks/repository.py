"""Store deferred calls in a bucket that only policy writes, one entry for each task.

Each replica watches the bucket to receive due steps and results. Decisions read the bucket
directly, and every write is a compare-and-swap.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from toolbus_common.nats.kv_bucket import Bucket, Change
from toolbus_common.nats.sealed_records import Records
from toolbus_policy.approvals.tasks.model import DeferredCall, Stage

_decode = msgspec.json.Decoder(DeferredCall).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class StoredTask:
    """A deferred call and its revision. In memory it has neither the call nor its result."""

    task: DeferredCall
    revision: int


class TaskRepository:
    """The deferred calls, with a local projection of the bucket."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._bucket: Bucket
        self._known: dict[str, StoredTask] = {}
        self._counts: Counter[str] = Counter()
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self.on_change: Callable[[], None] = lambda: None

    def open(self, bucket: Bucket) -> None:
        """Set the bucket that is written."""
        self._bucket = bucket

    def apply_change(self, change: Change | None) -> None:
        """Apply one change of the bucket."""
        change = self._records.opened(change)
        if change is None:
            return
        if change.value is None:
            self._drop(change.key)
        else:
            self._remember(StoredTask(_decode(change.value), change.revision))

    def all(self) -> Iterator[DeferredCall]:
        """Return all locally known tasks, as a copy."""
        return iter([entry.task for entry in self._known.values()])

    def count_for_key(self, key: str) -> int:
        """Return the number of a key's tasks."""
        return self._counts[key]

    async def load(self, task: str) -> StoredTask | None:
        """Return the entry from the bucket. Raises `BusDownError`."""
        found = await self._bucket.get(task)
        if found is None or found.value is None:
            return None
        entry = StoredTask(_decode(self._records.open(task, found.value)), found.revision)
        self._remember(entry)
        return entry

    async def put(self, task: DeferredCall, previous: StoredTask | None) -> StoredTask | None:
        """Replace the known revision; return None on a conflicting change.

        Raises `BusDownError`.
        """
        sealed = self._records.seal(task.id, _encode(task))
        revision = await self._bucket.swap(task.id, sealed, previous.revision if previous else 0)
        if revision is None:
            return None
        entry = StoredTask(task, revision)
        self._remember(entry)
        return entry

    async def forget(self, task: str) -> None:
        """Delete an entry."""
        await self._bucket.delete(task)
        self._drop(task)

    async def wait_until_ended(self, task: str, seconds: float) -> None:
        """Wait for the end of a task, at most `seconds`."""
        known = self._known.get(task)
        if known is not None and known.task.stage is Stage.ENDED:
            return
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(task, set())
        waiting.add(ended)
        try:
            await asyncio.wait([ended], timeout=seconds)
        finally:
            waiting.discard(ended)
            if not waiting:
                self._waiting.pop(task, None)

    def _drop(self, task: str) -> None:
        before = self._known.pop(task, None)
        if before is not None:
            self._counts[before.task.key] -= 1
            self._counts += Counter()  # drops keys without tasks

    def _remember(self, entry: StoredTask) -> None:
        task = entry.task
        before = self._known.get(task.id)
        if before is not None and before.revision >= entry.revision:
            return
        if before is None:
            self._counts[task.key] += 1
        self._known[task.id] = StoredTask(replace(task, call="", result=b""), entry.revision)
        self.on_change()
        if task.stage is Stage.ENDED:
            for ended in self._waiting.get(task.id, ()):
                if not ended.done():
                    ended.set_result(None)
