"""The docket: every approval there is, in a bucket that only policy writes, one entry a binding.

Each replica follows the bucket, to know what waits and to hear decisions. What a call is due is
read from the bucket itself, and every change is a compare-and-swap: who has not seen the newest
looks again.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import time

import msgspec
from msgspec.structs import replace

from toolbus_common.nats.kv_bucket import Bucket, Change
from toolbus_common.nats.sealed_records import Records
from toolbus_policy.approvals.model import OPEN, Approval, State

_decode = msgspec.json.Decoder(Approval).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Kept:
    """An approval and its revision. In memory it is without its arguments."""

    approval: Approval
    revision: int


class Docket:
    """The approvals as this replica knows them."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._bucket: Bucket
        self._kept: dict[str, Kept] = {}
        self._bindings: dict[str, str] = {}  # by id
        self._waiting: set[tuple[Callable[[], object], asyncio.Future[None]]] = set()
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
            self._forget(change.key)
        else:
            self._take(Kept(_decode(change.value), change.revision))

    def find(self, binding: str) -> Kept | None:
        """What is known of a binding."""
        return self._kept.get(binding)

    def every(self) -> Iterator[Kept]:
        """All that is known, as it is now."""
        return iter(list(self._kept.values()))

    def waiting(self, key: str = "") -> list[Kept]:
        """What waits for a person, the oldest first; of one key or of all."""
        now = time()
        found = [
            kept
            for kept in self._kept.values()
            if kept.approval.state is State.PENDING
            and kept.approval.stands(now)
            and key in ("", kept.approval.key)
        ]
        return sorted(found, key=lambda kept: kept.approval.requested_at)

    async def named(self, approval_id: str, seconds: float) -> Kept | None:
        """The approval of an id; one that was asked for elsewhere may take a moment to be heard."""
        await self._until(lambda: approval_id in self._bindings, seconds)
        return self._kept.get(self._bindings.get(approval_id, ""))

    async def newer(self, than: Kept, seconds: float) -> bool:
        """Wait for an approval to become something else; whether it did."""
        binding = than.approval.binding

        def changed() -> bool:
            kept = self._kept.get(binding)
            return kept is None or kept.revision > than.revision

        return await self._until(changed, seconds)

    async def whole(self, binding: str) -> Kept | None:
        """The entry as the bucket has it, with its arguments. Raises `BusDownError`."""
        entry = await self._bucket.get(binding)
        if entry is None or entry.value is None:
            self._forget(binding)
            return None
        kept = Kept(_decode(self._records.open(binding, entry.value)), entry.revision)
        self._take(kept)
        return kept

    async def put(self, approval: Approval, over: Kept | None) -> bool:
        """Write over what is known; whether nobody was faster. Raises `BusDownError`."""
        last = over.revision if over is not None else 0
        sealed = self._records.seal(approval.binding, _encode(approval))
        revision = await self._bucket.swap(approval.binding, sealed, last)
        if revision is None:
            return False
        self._take(Kept(approval, revision))
        return True

    def forget_ended(self, now: float) -> None:
        """Keep nothing in memory that no longer counts; the bucket forgets by itself."""
        for kept in self.every():
            if kept.approval.state not in OPEN and not kept.approval.stands(now):
                self._forget(kept.approval.binding)

    def _take(self, kept: Kept) -> None:
        binding = kept.approval.binding
        before = self._kept.get(binding)
        if before is not None and before.revision >= kept.revision:
            return
        if before is not None:
            self._bindings.pop(before.approval.id, None)
        self._kept[binding] = Kept(replace(kept.approval, arguments=""), kept.revision)
        self._bindings[kept.approval.id] = binding
        self._tell()

    def _forget(self, binding: str) -> None:
        before = self._kept.pop(binding, None)
        if before is not None:
            self._bindings.pop(before.approval.id, None)
            self._tell()

    def _tell(self) -> None:
        self.on_change()
        for condition, heard in self._waiting:
            if not heard.done() and condition():
                heard.set_result(None)

    async def _until(self, condition: Callable[[], object], seconds: float) -> bool:
        if condition():
            return True
        heard: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = (condition, heard)
        self._waiting.add(waiter)
        try:
            async with asyncio.timeout(seconds):
                await heard
        except TimeoutError:
            return False
        finally:
            self._waiting.discard(waiter)
        return True
