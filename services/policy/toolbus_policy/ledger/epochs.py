"""The ledger's epochs, kept on the bus: what tells our counters from an emptied Redis."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from time import time
from typing import Protocol

import msgspec

from toolbus_common.contracts import LedgerOpened
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.nats.kv_bucket import Bucket, Change

EPOCH, MARK = "epoch", "mark"


class Epoch(msgspec.Struct, frozen=True):
    """One life of a customer's counters. What was spent before `since` does not concern them."""

    id: str
    since: float


@dataclass(frozen=True, slots=True)
class Known:
    """What the bus knows of a customer: its epoch, and how far its counters had come at least."""

    epoch: Epoch
    tick: int


class Epochs(Protocol):
    """Where epochs are kept outside Redis."""

    async def known(self, customer: str) -> Known | None:
        """The customer's epoch, or None before its first use."""
        ...

    async def begin(self, customer: str, epoch: str) -> Known:
        """Keep a first epoch unless there is one; the one that is kept."""
        ...

    async def renew(self, customer: str, old: Epoch, new: Epoch, how: str, by: str) -> bool:
        """Put an epoch in the place of another; False when somebody was faster."""
        ...

    async def mark(self, customer: str, epoch: str, tick: int) -> None:
        """Remember how far the counters have come."""
        ...


class BusEpochs:
    """Epochs in the bucket `tb_ledger`, and in the events: who began counting anew, and when."""

    def __init__(self, bucket: Bucket, events: EventPublisher) -> None:
        self._bucket = bucket
        self._events = events

    async def known(self, customer: str) -> Known | None:
        """The customer's epoch, or None before its first use."""
        entry = await self._bucket.get(f"{EPOCH}.{customer}")
        if entry is None or not entry.value:
            return None
        epoch = _decoded(entry.value)
        mark = await self._bucket.get(f"{MARK}.{customer}")
        of, tick = _mark(mark.value) if mark is not None and mark.value else ("", 0)
        return Known(epoch, tick if of == epoch.id else 0)

    async def begin(self, customer: str, epoch: str) -> Known:
        """Keep a first epoch unless there is one; the one that is kept."""
        first = Epoch(epoch, time())
        await self._events.publish_durable(_opened(customer, first, "first"))
        await self._bucket.swap(f"{EPOCH}.{customer}", msgspec.json.encode(first), 0)
        return await self.known(customer) or Known(first, 0)

    async def renew(self, customer: str, old: Epoch, new: Epoch, how: str, by: str) -> bool:
        """Put an epoch in the place of another; False when somebody was faster."""
        entry = await self._bucket.get(f"{EPOCH}.{customer}")
        if entry is None or not entry.value or _decoded(entry.value) != old:
            return False
        await self._events.publish_durable(_opened(customer, new, how, by))
        value = msgspec.json.encode(new)
        return await self._bucket.swap(f"{EPOCH}.{customer}", value, entry.revision) is not None

    async def mark(self, customer: str, epoch: str, tick: int) -> None:
        """Remember how far the counters have come."""
        await self._bucket.put(f"{MARK}.{customer}", f"{epoch}:{tick}".encode())


class Marks:
    """Every customer that was ever spent in, and what other replicas say of its counters."""

    def __init__(self) -> None:
        self.customers: set[str] = set()
        self.on_mark: Callable[[str, str, int], None] = lambda _customer, _epoch, _tick: None

    def hear(self, change: Change | None) -> None:
        """Take one change of the bucket."""
        if change is None or change.value is None:
            return
        kind, _, customer = change.key.partition(".")
        if kind == MARK:
            self.on_mark(customer, *_mark(change.value))
        else:
            self.customers.add(customer)


def _mark(value: bytes) -> tuple[str, int]:
    epoch, _, tick = value.decode().partition(":")
    return epoch, int(tick)


def _decoded(value: bytes) -> Epoch:
    try:
        return msgspec.json.decode(value, type=Epoch)
    except msgspec.DecodeError:  # as it was written until 0.1: the moment it began, and no more
        return Epoch(value.decode(), datetime.fromisoformat(value.decode()).timestamp())


def _opened(customer: str, epoch: Epoch, how: str, by: str = "") -> LedgerOpened:
    return LedgerOpened(
        id=f"{epoch.id}.{secrets.token_hex(4)}.opened",
        at=time() if how != "first" else epoch.since,
        customer=customer,
        epoch=epoch.id,
        how=how,
        since=epoch.since,
        by=by,
    )
