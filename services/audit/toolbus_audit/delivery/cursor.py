"""Progress of an export or a SIEM sink, stored in a bucket, with a lease for its holder.

One audit replica has the lease and does the work. It renews the entry every few seconds. If an
entry is not renewed, another replica takes over. Each replica measures the time between changes
with its own clock, so the clocks may differ.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from time import monotonic
from typing import Any

import msgspec
from msgspec import Struct

from toolbus_common.concurrency import completely, first_of
from toolbus_common.errors import BusDownError
from toolbus_common.nats.kv_bucket import Bucket

log = logging.getLogger(__name__)

BEAT_SECONDS = 5.0
LOOK_SECONDS = 1.0  # seconds between two checks by a replica that waits for the lease
LEASE_SECONDS = 20.0  # after which a lease without a renewal ends


class OvertakenError(Exception):
    """Another audit replica has the lease now."""


class CursorState(Struct):
    """Stored state. `done` is the sequence of the last processed message of `stream`.

    `until` is the end of the window that an export is writing, 0 between windows. `at` is the time
    of the last finished window, in Unix seconds. `holder` is empty if the lease is free.
    """

    holder: str = ""
    stream: str = ""
    done: int = 0
    until: int = 0
    at: float = 0.0


class Cursor:
    """One entry of the bucket. The holder may change `state`; `save` stores it."""

    def __init__(self, bucket: Bucket, key: str, holder: str, lease: float = LEASE_SECONDS) -> None:
        self._bucket = bucket
        self._key = key
        self._holder = holder
        self._lease = lease
        self._beat = min(BEAT_SECONDS, lease / 4)
        self._revision = 0
        self._writing = asyncio.Lock()
        self.state = CursorState()

    async def run_while_held(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Wait for the lease, then run `work` while renewing it.

        Raises:
            OvertakenError: another replica took over.
            BusDownError: the bucket cannot be reached.

        """
        await self._acquire()
        try:
            await first_of(work(), self._renew())
        finally:
            await completely(self._release())

    async def save(self) -> None:
        """Store the state. Raises `OvertakenError` or `BusDownError`."""
        async with self._writing:
            data = msgspec.json.encode(self.state)
            revision = await self._bucket.swap(self._key, data, self._revision)
            if revision is None:
                raise OvertakenError
            self._revision = revision

    async def _acquire(self) -> None:
        seen, since = -1, monotonic()
        while True:
            entry = await self._bucket.get(self._key)
            state = _decode_state(entry.value if entry is not None else None)
            revision = entry.revision if entry is not None else 0
            if revision != seen:
                seen, since = revision, monotonic()
            if state.holder in ("", self._holder) or monotonic() - since >= self._lease:
                self.state, self._revision = state, revision
                self.state.holder = self._holder
                with suppress(OvertakenError):  # another replica took the lease first; check again
                    await self.save()
                    return
            await asyncio.sleep(min(self._beat, LOOK_SECONDS))

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._beat)
            await self.save()

    async def _release(self) -> None:
        """Free the lease. If this cannot be stored, the lease expires."""
        self.state.holder = ""
        with suppress(OvertakenError, BusDownError):
            await self.save()


def _decode_state(value: bytes | None) -> CursorState:
    if not value:
        return CursorState()
    try:
        return msgspec.json.decode(value, type=CursorState)
    except msgspec.MsgspecError:
        log.error("cursor.unreadable")  # noqa: TRY400 - the work starts from the beginning
        return CursorState()
