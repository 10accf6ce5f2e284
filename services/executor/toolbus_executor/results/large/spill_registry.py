"""Large results of one server: spilled while they stream in, then settled for a call."""

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

UNSETTLED_SECONDS = 60.0  # then a value that belongs to no call is deleted
CLOSE_SECONDS = 2.0
_SLICE = 256 << 10
_AS_MESSAGE = b'{"result":'
_PLACEHOLDER = PLACEHOLDER.encode()


class SpillRegistry:
    """Large results of one server."""

    def __init__(self, store: LargeResultStore, settings: Results) -> None:
        self.limit = settings.limit
        self._store = store
        self._settings = settings
        self._unsettled: dict[str, ExtractedValue] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(
        self, flow: Callable[[bool], None] | None = None, whole: Kind | None = None
    ) -> SpillBuffer:
        """Return a spill buffer for a message that has become too large; see `SpillBuffer`."""
        return SpillBuffer(self._store, self._settings.largest, flow, whole)

    async def ended(self, spill: SpillBuffer) -> bytes:
        """Return the rest of a message once its large values are stored. Raises `ToolbusError`."""
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
        """Delete the stored parts of a message."""
        self._spawn(spill.abandon())

    def applies(self, raw: bytes, call: CallAdmitted) -> bool:
        """Return whether a result is too large, or is the rest of one that was."""
        if len(raw) <= self.limit and not (self._unsettled and _PLACEHOLDER in raw):
            return False
        return not call.tool.startswith(SCHEME)  # a part has the requested size

    async def settle(self, raw: bytes, call: CallAdmitted) -> tuple[bytes, int]:
        """Return the result with previews, and how many bytes of it are stored.

        Raises `ToolbusError`.
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
            if len(preview) > self.limit:  # many small values: store the rest as a whole
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
        """Return the requested part of a stored result. Raises `ToolbusError`."""
        return await read(self._store, call, select)

    async def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Wait for pending deletions at most `seconds`; the store expires the rest."""
        tasks = set(self._tasks)
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=seconds)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _spill(self, raw: bytes) -> bytes:
        """Return the rest of a result that was received whole."""
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
        """Return the stored values, each with a result URI for the call's principal."""
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
            task.exception()  # what could not be deleted expires


class MessageSpill:
    """The operations that a transport needs for one message that becomes too large."""

    spills: SpillRegistry | None = None  # None: such a message is rejected
    flow: Callable[[bool], None] | None = None
    whole: Kind | None = None  # kind of a body that is not JSON-RPC

    def begin(self) -> SpillBuffer:
        """Return a spill buffer for the rest of the message."""
        return self._of_server.begin(self.flow, self.whole)

    async def ended(self, spill: SpillBuffer) -> bytes:
        """Return the rest. Raises `ToolbusError`."""
        return await self._of_server.ended(spill)

    def abandon(self, spill: SpillBuffer) -> None:
        """Delete the stored parts of a message that will not be completed."""
        self._of_server.abandon(spill)

    def give_up(self) -> None:
        """Abandon what this object buffers itself, because no more data follows."""

    @property
    def _of_server(self) -> SpillRegistry:
        assert self.spills is not None  # noqa: S101 - set wherever messages can become too large
        return self.spills


def _only(value: ExtractedValue) -> bytes:
    return b'{"content":[{"type":"text","text":%b}]}' % value.placeholder
