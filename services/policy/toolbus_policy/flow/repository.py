"""Store what runs have read, in a bucket that only policy writes, one entry for each run.

Nothing is cached: every replica reads the leader of the bucket, so that a call sees the reads of
all calls that were dispatched before it, by any replica. Every write is a compare-and-swap.
"""

from collections.abc import AsyncIterator
from time import time

import msgspec

from toolbus_common.access.tool_patterns import full_name
from toolbus_common.contracts import FlowRun
from toolbus_common.contracts.flow import FlowState
from toolbus_common.errors import BusDownError
from toolbus_common.nats.kv_bucket import Bucket, Change


class StoredRun(msgspec.Struct, frozen=True, omit_defaults=True):
    """An entry of the bucket `tb_flow`. `ends` is in seconds since the epoch."""

    state: FlowState
    ends: float
    scope: str
    key: str
    customer: str

    def shown(self, run: str) -> FlowRun:
        """Return the entry for display."""
        return FlowRun(
            run=run, key=self.key, scope=self.scope, ends=self.ends, **first_reads(self.state)
        )


class Loaded(msgspec.Struct, frozen=True):
    """What a run had read at the time `at`, and the revision of its entry (0 without one)."""

    state: FlowState
    ends: float
    revision: int
    at: float
    stored: StoredRun | None = None


_decode = msgspec.json.Decoder(StoredRun).decode
_encode = msgspec.json.Encoder().encode
NOTHING_READ = FlowState()


class RunRepository:
    """What runs have read."""

    def __init__(self) -> None:
        self._bucket: Bucket

    def open(self, bucket: Bucket) -> None:
        """Set the bucket."""
        self._bucket = bucket

    async def load(self, run: str) -> Loaded:
        """Return what a run has read. Raises `BusDownError`, also for an unreadable entry."""
        return _loaded(await self._bucket.get(run))

    async def load_to_reset(self, run: str) -> Loaded:
        """Return what a run has read; an unreadable entry has a revision, but no content."""
        return _loaded(await self._bucket.get(run), is_lenient=True)

    async def put(self, run: str, stored: StoredRun, previous: Loaded) -> bool:
        """Replace the entry; return False on a conflicting change. Raises `BusDownError`."""
        return await self._bucket.swap(run, _encode(stored), previous.revision) is not None

    async def all(self) -> AsyncIterator[FlowRun]:
        """Yield the runs that have read anything. Raises `BusDownError`."""
        for change in await self._bucket.present():
            loaded = _loaded(change, is_lenient=True)
            if loaded.stored is not None and loaded.state != NOTHING_READ:
                yield loaded.stored.shown(change.key)


def first_reads(state: FlowState) -> dict[str, str]:
    """Return the first calls that read, as `<call id> <server>__<tool>`."""
    found = {"private": state.private, "untrusted": state.untrusted}
    return {
        kind: f"{each.call} {full_name(each.server, each.tool)}" if each is not None else ""
        for kind, each in found.items()
    }


def _loaded(change: Change | None, *, is_lenient: bool = False) -> Loaded:
    now = time()
    if change is None or change.value is None:
        return Loaded(NOTHING_READ, 0.0, 0, now)
    try:
        stored = _decode(change.value)
    except msgspec.MsgspecError as error:
        if is_lenient:
            return Loaded(NOTHING_READ, 0.0, change.revision, now)
        raise BusDownError(
            f"The record of the run '{change.key}' cannot be read, so it is unknown what the run "
            "has read. An operator can reset it with 'toolbus flow reset'."
        ) from error
    state = stored.state if now < stored.ends else NOTHING_READ
    return Loaded(state, stored.ends, change.revision, now, stored)
