"""How far an export or a sink has come: one entry of the bucket, written by whoever holds it.

Of several audits one holds it and does the work. It writes the entry anew every few seconds; where
nobody does, another takes over. Time is measured by each one's own clock, so clocks may differ.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic

import msgspec
from msgspec import Struct

from toolbus_common.concurrency import end
from toolbus_common.errors import BusDownError
from toolbus_common.nats.kv_bucket import Bucket

log = logging.getLogger(__name__)

BEAT_SECONDS = 5.0
LOOK_SECONDS = 1.0  # of who waits for it
LEASE_SECONDS = 20.0  # without a word from its holder


class OvertakenError(Exception):
    """Another audit holds it now."""


class Place(Struct):
    """What is kept. `done` is the last message of `stream` that needs nothing more.

    `until` is where the window ends that an export is writing, 0 between windows; `at` when the
    last one was done, in seconds. `holder` is empty where nobody holds it.
    """

    holder: str = ""
    stream: str = ""
    done: int = 0
    until: int = 0
    at: float = 0.0


class Cursor:
    """One entry. `place` may be changed while it is held, and `keep` makes that last."""

    def __init__(self, bucket: Bucket, key: str, holder: str, lease: float = LEASE_SECONDS) -> None:
        self._bucket = bucket
        self._key = key
        self._holder = holder
        self._lease = lease
        self._beat = min(BEAT_SECONDS, lease / 4)
        self._revision = 0
        self._writing = asyncio.Lock()
        self.place = Place()

    async def while_held(self, work: Callable[[], Awaitable[None]]) -> None:
        """Wait until it may be held, hold it, and do the work meanwhile.

        Raises:
            OvertakenError: another took over.
            BusDownError: the bucket cannot be reached.

        """
        await self._take()
        tasks = [asyncio.ensure_future(work()), asyncio.ensure_future(self._beating())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            await end(*tasks)
            await self._leave()

    async def keep(self) -> None:
        """Write the place. Raises `OvertakenError` or `BusDownError`."""
        async with self._writing:
            told = msgspec.json.encode(self.place)
            revision = await self._bucket.swap(self._key, told, self._revision)
            if revision is None:
                raise OvertakenError
            self._revision = revision

    async def _take(self) -> None:
        seen, since = -1, monotonic()
        while True:
            entry = await self._bucket.get(self._key)
            place = _place(entry.value if entry is not None else None)
            revision = entry.revision if entry is not None else 0
            if revision != seen:
                seen, since = revision, monotonic()
            if place.holder in ("", self._holder) or monotonic() - since >= self._lease:
                self.place, self._revision = place, revision
                self.place.holder = self._holder
                with suppress(OvertakenError):  # another was faster: look again
                    await self.keep()
                    return
            await asyncio.sleep(min(self._beat, LOOK_SECONDS))

    async def _beating(self) -> None:
        while True:
            await asyncio.sleep(self._beat)
            await self.keep()

    async def _leave(self) -> None:
        """Let another have it at once; where that cannot be said, the lease runs out."""
        self.place.holder = ""
        with suppress(OvertakenError, BusDownError):
            await self.keep()


def _place(value: bytes | None) -> Place:
    if not value:
        return Place()
    try:
        return msgspec.json.decode(value, type=Place)
    except msgspec.MsgspecError:
        log.error("cursor.unreadable")  # noqa: TRY400 - it begins anew
        return Place()
