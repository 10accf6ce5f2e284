"""Store approvals in a bucket that only policy writes, one entry for each binding.

Each replica watches the bucket to receive pending approvals and decisions. The decision about a
call reads the bucket directly, and every write is a compare-and-swap that is retried on conflict.
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
class StoredApproval:
    """An approval and its revision. In memory it has no arguments."""

    approval: Approval
    revision: int


class ApprovalRepository:
    """The approvals, with a local projection of the bucket."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._bucket: Bucket
        self._stored: dict[str, StoredApproval] = {}
        self._bindings: dict[str, str] = {}  # by approval id
        self._waiters: set[tuple[Callable[[], object], asyncio.Future[None]]] = set()
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
            self._forget(change.key)
        else:
            self._remember(StoredApproval(_decode(change.value), change.revision))

    def find(self, binding: str) -> StoredApproval | None:
        """Return the locally known approval of a binding."""
        return self._stored.get(binding)

    def all(self) -> Iterator[StoredApproval]:
        """Return all locally known approvals, as a copy."""
        return iter(list(self._stored.values()))

    def pending(self, key: str = "") -> list[StoredApproval]:
        """Return the pending approvals of one key (all keys if empty), oldest first."""
        now = time()
        found = [
            stored
            for stored in self._stored.values()
            if stored.approval.state is State.PENDING
            and stored.approval.is_current(now)
            and key in ("", stored.approval.key)
        ]
        return sorted(found, key=lambda stored: stored.approval.requested_at)

    async def find_by_id(self, approval_id: str, seconds: float) -> StoredApproval | None:
        """Return an approval by id. Wait up to `seconds` until another replica has created it."""
        await self._wait_until(lambda: approval_id in self._bindings, seconds)
        return self._stored.get(self._bindings.get(approval_id, ""))

    async def wait_for_change(self, than: StoredApproval, seconds: float) -> bool:
        """Wait until an approval is newer than `than`; return whether it became so in time."""
        binding = than.approval.binding

        def changed() -> bool:
            stored = self._stored.get(binding)
            return stored is None or stored.revision > than.revision

        return await self._wait_until(changed, seconds)

    async def load(self, binding: str) -> StoredApproval | None:
        """Return the entry from the bucket, with its arguments. Raises `BusDownError`."""
        entry = await self._bucket.get(binding)
        if entry is None or entry.value is None:
            self._forget(binding)
            return None
        stored = StoredApproval(_decode(self._records.open(binding, entry.value)), entry.revision)
        self._remember(stored)
        return stored

    async def put(self, approval: Approval, previous: StoredApproval | None) -> bool:
        """Replace the known revision; return False on a conflicting change.

        Raises `BusDownError`.
        """
        last = previous.revision if previous is not None else 0
        sealed = self._records.seal(approval.binding, _encode(approval))
        revision = await self._bucket.swap(approval.binding, sealed, last)
        if revision is None:
            return False
        self._remember(StoredApproval(approval, revision))
        return True

    def evict_ended(self, now: float) -> None:
        """Remove ended approvals from memory. The bucket expires its entries by age.

        A withdrawn approval is kept until it would have expired, so that a late decision fails with
        the reason.
        """
        for stored in self.all():
            if stored.approval.state not in OPEN and now >= stored.approval.ends:
                self._forget(stored.approval.binding)

    def _remember(self, stored: StoredApproval) -> None:
        binding = stored.approval.binding
        before = self._stored.get(binding)
        if before is not None and before.revision >= stored.revision:
            return
        if before is not None:
            self._bindings.pop(before.approval.id, None)
        self._stored[binding] = StoredApproval(
            replace(stored.approval, arguments="", shown=""), stored.revision
        )
        self._bindings[stored.approval.id] = binding
        self._notify()

    def _forget(self, binding: str) -> None:
        before = self._stored.pop(binding, None)
        if before is not None:
            self._bindings.pop(before.approval.id, None)
            self._notify()

    def _notify(self) -> None:
        self.on_change()
        for condition, changed_future in self._waiters:
            if not changed_future.done() and condition():
                changed_future.set_result(None)

    async def _wait_until(self, condition: Callable[[], object], seconds: float) -> bool:
        if condition():
            return True
        changed_future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = (condition, changed_future)
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(seconds):
                await changed_future
        except TimeoutError:
            return False
        finally:
            self._waiters.discard(waiter)
        return True
