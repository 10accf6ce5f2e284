"""Generations of the ledger, stored on the bus to detect an emptied or restored Redis.

A generation is one lifetime of a customer's counters. On the wire and in Redis it is called
`epoch`; its `tick` counts the changes within it.
"""

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


class Generation(msgspec.Struct, frozen=True):
    """One lifetime of a customer's counters; they do not include spending before `since`."""

    id: str
    since: float


@dataclass(frozen=True, slots=True)
class KnownGeneration:
    """The generation that the bus stores for a customer, and a lower bound of its tick.

    Counters with a lower tick were restored from an old copy of Redis.
    """

    generation: Generation
    tick: int


class GenerationStore(Protocol):
    """Storage of generations outside Redis."""

    async def known(self, customer: str) -> KnownGeneration | None:
        """Return the customer's generation; None before the customer's first use."""
        ...

    async def begin(self, customer: str, generation: str) -> KnownGeneration:
        """Store a first generation unless one exists; return the stored generation."""
        ...

    async def renew(
        self, customer: str, old: Generation, new: Generation, how: str, by: str
    ) -> bool:
        """Replace a generation; return False on a conflicting change."""
        ...

    async def mark(self, customer: str, generation: str, tick: int) -> None:
        """Store the tick that the counters have reached."""
        ...


class BusGenerationStore:
    """Generations in the bucket `tb_ledger`. An event is published for each new generation."""

    def __init__(self, bucket: Bucket, events: EventPublisher) -> None:
        self._bucket = bucket
        self._events = events

    async def known(self, customer: str) -> KnownGeneration | None:
        """Return the customer's generation; None before the customer's first use."""
        entry = await self._bucket.get(f"{EPOCH}.{customer}")
        if entry is None or not entry.value:
            return None
        generation = _decode_generation(entry.value)
        mark = await self._bucket.get(f"{MARK}.{customer}")
        marked, tick = _decode_mark(mark.value) if mark is not None and mark.value else ("", 0)
        return KnownGeneration(generation, tick if marked == generation.id else 0)

    async def begin(self, customer: str, generation: str) -> KnownGeneration:
        """Store a first generation unless one exists; return the stored generation."""
        first = Generation(generation, time())
        await self._events.publish_durable(_opened(customer, first, "first"))
        await self._bucket.swap(f"{EPOCH}.{customer}", msgspec.json.encode(first), 0)
        return await self.known(customer) or KnownGeneration(first, 0)

    async def renew(
        self, customer: str, old: Generation, new: Generation, how: str, by: str
    ) -> bool:
        """Replace a generation; return False on a conflicting change."""
        entry = await self._bucket.get(f"{EPOCH}.{customer}")
        if entry is None or not entry.value or _decode_generation(entry.value) != old:
            return False
        await self._events.publish_durable(_opened(customer, new, how, by))
        value = msgspec.json.encode(new)
        return await self._bucket.swap(f"{EPOCH}.{customer}", value, entry.revision) is not None

    async def mark(self, customer: str, generation: str, tick: int) -> None:
        """Store the tick that the counters have reached."""
        await self._bucket.put(f"{MARK}.{customer}", f"{generation}:{tick}".encode())


class LedgerWatcher:
    """Watcher of the bucket `tb_ledger`: customers with counters, and ticks of other replicas."""

    def __init__(self) -> None:
        self.customers: set[str] = set()
        self.on_mark: Callable[[str, str, int], None] = lambda _customer, _generation, _tick: None

    def apply_change(self, change: Change | None) -> None:
        """Apply one change of the bucket."""
        if change is None or change.value is None:
            return
        kind, _, customer = change.key.partition(".")
        if kind == MARK:
            self.on_mark(customer, *_decode_mark(change.value))
        else:
            self.customers.add(customer)


def _decode_mark(value: bytes) -> tuple[str, int]:
    generation, _, tick = value.decode().partition(":")
    return generation, int(tick)


def _decode_generation(value: bytes) -> Generation:
    try:
        return msgspec.json.decode(value, type=Generation)
    except msgspec.DecodeError:  # the form until 0.1: only the start time
        return Generation(value.decode(), datetime.fromisoformat(value.decode()).timestamp())


def _opened(customer: str, generation: Generation, how: str, by: str = "") -> LedgerOpened:
    return LedgerOpened(
        id=f"{generation.id}.{secrets.token_hex(4)}.opened",
        at=time() if how != "first" else generation.since,
        customer=customer,
        epoch=generation.id,
        how=how,
        since=generation.since,
        by=by,
    )
