"""Large results of one server. They are stored while they arrive, then assigned to a call."""

import asyncio
from collections.abc import Callable, Coroutine
from time import time
from typing import Any

from toolbus_common.config import Results
from toolbus_common.contracts import CallAdmitted
from toolbus_common.mcp.result_uris import SCHEME
from toolbus_executor.results.large.json_scanner import Kind
from toolbus_executor.results.large.preview import (
    StoredValue,
    declared_media,
    placeholders_in,
    with_previews,
)
from toolbus_executor.results.large.reader import Select, read
from toolbus_executor.results.large.spill import PLACEHOLDER, ExtractedValue, SpillBuffer
from toolbus_executor.results.large.store import LargeResultStore, Manifest

UNSETTLED_SECONDS = 60.0  # after this time a value that belongs to no call is deleted
CLOSE_SECONDS = 2.0
_SLICE = 256 << 10
_AS_MESSAGE = b'{"result":'
_PLACEHOLDER = PLACEHOLDER.encode()


class SpillRegistry:
    """The large results of one server that are being stored or not assigned to a call yet."""

    def __init__(self, store: LargeResultStore, settings: Results) -> None:
        self.limit = settings.limit
        self._store = store
        self._settings = settings
        self._unsettled: dict[str, ExtractedValue] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(
        self, flow: Callable[[bool], None] | None = None, whole: Kind | None = None
    ) -> SpillBuffer:
        """Return a spill buffer for a message that is too large.

        The arguments are those of `SpillBuffer`.
        """
        return SpillBuffer(self._store, self._settings.largest, flow, whole)

    async def ended(self, spill: SpillBuffer) -> bytes:
        """Wait until the large values of a message are stored, and return the rest.

        Raises `ToolbusError`.
        """
        try:
            rest = await spill.ended()
        except BaseException:
            self.abandon(spill)
            raise
        for value in spill.extracted:
            self._unsettled[value.name] = value
        asyncio.get_running_loop().call_later(UNSETTLED_SECONDS, self._expire, spill)
        return rest

    def abandon(self, spill: SpillBuffer) -> None:
        """Start deleting the stored parts of a message."""
        self._spawn(spill.abandon())

    def applies(self, raw: bytes, call: CallAdmitted) -> bool:
        """Return whether a result is too large, or contains placeholders of stored values."""
        if len(raw) <= self.limit and not (self._unsettled and _PLACEHOLDER in raw):
            return False
        return not call.tool.startswith(SCHEME)  # the caller requested a part of this size

    async def settle(self, raw: bytes, call: CallAdmitted) -> tuple[bytes, int]:
        """Return the result with previews, and the number of its bytes that are stored.

        The stored values are assigned to the call's principal. Raises `ToolbusError`.
        """
        if len(raw) > self.limit:
            raw = await self._spill(raw)
        found = [
            self._unsettled.pop(name) for name in placeholders_in(raw) if name in self._unsettled
        ]
        try:
            if found:
                media = declared_media(raw)
                for value in found:
                    value.media = media.get(value.name, value.media)
            stored = await self._name_values(found, call)
            preview = with_previews(raw, {each.name: each for each in stored})
            if len(preview) > self.limit:  # many small values: also store the rest, as one value
                found.append(await self._store_whole(preview))
                stored += await self._name_values(found[-1:], call)
                preview = with_previews(_only(found[-1]), {found[-1].name: stored[-1]})
        except BaseException:
            for value in found:
                self._spawn(value.remove(self._store))
            raise
        self._assign_quota(found, stored, call)
        return preview, sum(each.size for each in stored)

    async def read(self, call: CallAdmitted, select: Select | None) -> bytes:
        """Return the part of a stored result that the call requests. Raises `ToolbusError`."""
        return await read(self._store, call, select)

    async def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Wait up to `seconds` for pending deletions. Parts that are not deleted expire."""
        tasks = set(self._tasks)
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=seconds)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _spill(self, raw: bytes) -> bytes:
        """Store the large values of a complete result, and return the rest."""
        spill = self.begin()
        try:
            spill.feed(_AS_MESSAGE)
            for at in range(0, len(raw), _SLICE):
                spill.feed(raw[at : at + _SLICE])
                await spill.service()
        except BaseException:
            self.abandon(spill)
            raise
        return (await self.ended(spill))[len(_AS_MESSAGE) :]

    async def _store_whole(self, raw: bytes) -> ExtractedValue:
        spill = self.begin(whole=Kind.JSON)
        try:
            for at in range(0, len(raw), _SLICE):
                spill.feed(raw[at : at + _SLICE])
                await spill.service()
            await spill.ended()
        except BaseException:
            self.abandon(spill)
            raise
        return spill.extracted[0]

    async def _name_values(
        self, values: list[ExtractedValue], call: CallAdmitted
    ) -> list[StoredValue]:
        """Return the stored values. Each gets a result URI for the call's principal."""
        self._store.quota.check(sum(value.size for value in values), (call.customer, call.key))
        expires = time() + self._settings.ttl
        stored = []
        for value in values:
            manifest = Manifest(value.prefix, value.key, value.size, value.media, expires)
            handle = await self._store.create_handle(manifest, call)
            stored.append(
                StoredValue(value.name, handle, value.size, value.media, value.beginning, expires)
            )
        return stored

    def _assign_quota(
        self, values: list[ExtractedValue], stored: list[StoredValue], call: CallAdmitted
    ) -> None:
        for value, preview in zip(values, stored, strict=True):
            value.settled = True
            self._store.quota.assign(value.taken, (call.customer, call.key), preview.expires)

    def _expire(self, spill: SpillBuffer) -> None:
        for value in spill.extracted:
            self._unsettled.pop(value.name, None)
        self.abandon(spill)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # parts that could not be deleted expire


class MessageSpill:
    """Access of a transport to the spill registry, for one message."""

    spills: SpillRegistry | None = None  # if None, messages that are too large are rejected
    flow: Callable[[bool], None] | None = None
    whole: Kind | None = None  # kind of a body that is not JSON-RPC

    def begin(self) -> SpillBuffer:
        """Return a spill buffer for a message that is too large."""
        return self._of_server.begin(self.flow, self.whole)

    async def ended(self, spill: SpillBuffer) -> bytes:
        """Wait until all values are stored, and return the rest. Raises `ToolbusError`."""
        return await self._of_server.ended(spill)

    def abandon(self, spill: SpillBuffer) -> None:
        """Start deleting the stored parts of an incomplete message."""
        self._of_server.abandon(spill)

    def give_up(self) -> None:
        """Discard the data that this object buffers, because no more data follows."""

    @property
    def _of_server(self) -> SpillRegistry:
        assert self.spills is not None  # noqa: S101 - set wherever messages can become too large
        return self.spills


def _only(value: ExtractedValue) -> bytes:
    return b'{"content":[{"type":"text","text":%b}]}' % value.placeholder
