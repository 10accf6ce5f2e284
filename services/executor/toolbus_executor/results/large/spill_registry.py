"""Large results of one server. They are stored while they arrive, then assigned to a call."""

import asyncio
from collections.abc import Callable, Coroutine
from time import time
from typing import Any

import msgspec

from toolbus_common.config import Results
from toolbus_common.contracts import CallAdmitted
from toolbus_common.errors import UpstreamInvalidError
from toolbus_common.mcp.result_uris import SCHEME
from toolbus_executor.results.large.json_scanner import Kind
from toolbus_executor.results.large.preview import (
    StoredValue,
    declared_media,
    placeholders_in,
    with_previews,
)
from toolbus_executor.results.large.reader import Checks, Select, read
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

    async def whole(self, raw: bytes, largest: int) -> bytes:
        """Return a result with its stored values in place of their placeholders.

        The values are then no longer stored. If the result would have more than `largest` bytes, it
        is returned unchanged. Raises `ToolbusError`.
        """
        if not self._unsettled or _PLACEHOLDER not in raw:
            return raw
        names = [name for name in placeholders_in(raw) if name in self._unsettled]
        values = [self._unsettled[name] for name in names]
        if len(raw) + sum(each.size for each in values) * 2 > largest:
            return raw
        for name in names:
            self._unsettled.pop(name)
        try:
            for value in values:
                manifest = Manifest(value.prefix, value.key, value.size, value.media, 0.0)
                stored = await self._store.read(manifest, 0, value.size)
                if stored is None:
                    raise UpstreamInvalidError("A part of the large result was lost; retry.")
                raw = raw.replace(value.placeholder, _encoded(value.kind, stored))
        finally:
            for value in values:
                self._spawn(value.remove(self._store))
        return raw

    def has_stored(self, raw: bytes) -> bool:
        """Return whether a result contains placeholders of stored values."""
        return bool(self._unsettled) and _PLACEHOLDER in raw

    async def settle(
        self, raw: bytes, call: CallAdmitted, checks: Checks | None = None
    ) -> tuple[bytes, int]:
        """Return the result with previews, and the number of its bytes that are stored.

        The stored values are assigned to the call's principal. `checks` are those that the result
        has passed. Raises `ToolbusError`.
        """
        marks = checks.marks if checks is not None else ()
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
            stored = await self._name_values(found, call, marks)
            preview = with_previews(raw, {each.name: each for each in stored})
            if len(preview) > self.limit:  # many small values: also store the rest, as one value
                found.append(await self._store_whole(preview))
                stored += await self._name_values(found[-1:], call, marks)
                preview = with_previews(_only(found[-1]), {found[-1].name: stored[-1]})
        except BaseException:
            for value in found:
                self._spawn(value.remove(self._store))
            raise
        self._assign_quota(found, stored, call)
        return preview, sum(each.size for each in stored)

    async def read(
        self, call: CallAdmitted, select: Select | None, checks: Checks | None = None
    ) -> bytes:
        """Return the part of a stored result that the call requests. Raises `ToolbusError`.

        The whole result is checked first if it has not passed all of `checks`.
        """
        return await read(self._store, call, select, checks)

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
        self, values: list[ExtractedValue], call: CallAdmitted, marks: tuple[str, ...]
    ) -> list[StoredValue]:
        """Return the stored values. Each gets a result URI for the call's principal."""
        self._store.quota.check(sum(value.size for value in values), (call.customer, call.key))
        expires = time() + self._settings.ttl
        stored = []
        for value in values:
            manifest = Manifest(
                value.prefix, value.key, value.size, value.media, expires, checked=marks
            )
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


def _encoded(kind: Kind, value: bytes) -> bytes:
    """Return a stored value as the JSON of the message that contained it."""
    if kind is Kind.JSON:
        return value
    return msgspec.json.encode(value if kind is Kind.BASE64 else value.decode("utf-8", "replace"))


def _only(value: ExtractedValue) -> bytes:
    return b'{"content":[{"type":"text","text":%b}]}' % value.placeholder
