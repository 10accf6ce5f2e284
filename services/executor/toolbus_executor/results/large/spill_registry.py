"""What one server says that is too large to tell: begun while it streams in, settled for a call."""

import asyncio
from collections.abc import Callable, Coroutine
from time import time
from typing import Any

from toolbus_common.config import Results
from toolbus_common.contracts import CallAdmitted
from toolbus_common.mcp.result_uris import SCHEME
from toolbus_executor.results.large.json_scanner import Kind
from toolbus_executor.results.large.preview import Kept, marks_in, retold, said_media
from toolbus_executor.results.large.reader import Select, read
from toolbus_executor.results.large.spill import MARK, Hole, Spill
from toolbus_executor.results.large.store import Manifest, Vault

UNSETTLED_SECONDS = 60.0  # what belongs to no call is forgotten then
CLOSE_SECONDS = 2.0
_SLICE = 256 << 10
_AS_MESSAGE = b'{"result":'
_MARK = MARK.encode()


class Spills:
    """The large results of one server."""

    def __init__(self, vault: Vault, declared: Results) -> None:
        self.limit = declared.limit
        self._vault = vault
        self._declared = declared
        self._unsettled: dict[str, Hole] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, flow: Callable[[bool], None] | None = None, whole: Kind | None = None) -> Spill:
        """A place for an answer that has become too large; see `Spill`."""
        return Spill(self._vault, self._declared.largest, flow, whole)

    async def ended(self, spill: Spill) -> bytes:
        """What is left of an answer once the large is kept. Raises `ToolbusError`."""
        try:
            rest = await spill.ended()
        except BaseException:
            self.abandon(spill)
            raise
        for hole in spill.holes:
            self._unsettled[hole.name] = hole
        asyncio.get_running_loop().call_later(UNSETTLED_SECONDS, self._forget, spill)
        return rest

    def abandon(self, spill: Spill) -> None:
        """Nobody will read what was kept of this."""
        self._spawn(spill.abandon())

    def concern(self, raw: bytes, call: CallAdmitted) -> bool:
        """Whether a result is too large, or is what is left of one that was."""
        if len(raw) <= self.limit and not (self._unsettled and _MARK in raw):
            return False
        return not call.tool.startswith(SCHEME)  # a piece is as large as was asked for

    async def settle(self, raw: bytes, call: CallAdmitted) -> tuple[bytes, int]:
        """A result as its caller is told it, and how many bytes of it are kept.

        Raises `ToolbusError`.
        """
        if len(raw) > self.limit:
            raw = await self._spilled(raw)
        found = [self._unsettled.pop(name) for name in marks_in(raw) if name in self._unsettled]
        try:
            if found:
                media = said_media(raw)
                for hole in found:
                    hole.media = media.get(hole.name, hole.media)
            kept = await self._kept(found, call)
            told = retold(raw, {each.name: each for each in kept})
            if len(told) > self.limit:  # many small things: what is left as a whole
                found.append(await self._whole(told))
                kept += await self._kept(found[-1:], call)
                told = retold(_only(found[-1]), {found[-1].name: kept[-1]})
        except BaseException:
            for hole in found:
                self._spawn(hole.removed(self._vault))
            raise
        self._settled(found, kept, call)
        return told, sum(each.size for each in kept)

    async def read(self, call: CallAdmitted, select: Select | None) -> bytes:
        """The part of a kept result a `resources/read` asks for. Raises `ToolbusError`."""
        return await read(self._vault, call, select)

    async def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Let what is being removed go, for a while; the rest goes by itself."""
        tasks = set(self._tasks)
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=seconds)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _spilled(self, raw: bytes) -> bytes:
        """What is left of a result that came whole."""
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

    async def _whole(self, raw: bytes) -> Hole:
        spill = self.begin(whole=Kind.JSON)
        try:
            for at in range(0, len(raw), _SLICE):
                spill.feed(raw[at : at + _SLICE])
                await spill.service()
            await spill.ended()
        except BaseException:
            self.abandon(spill)
            raise
        return spill.holes[0]

    async def _kept(self, holes: list[Hole], call: CallAdmitted) -> list[Kept]:
        """Each with a handle of the call's principal."""
        self._vault.allowance.check(sum(hole.size for hole in holes), (call.customer, call.key))
        ends = time() + self._declared.ttl
        kept = []
        for hole in holes:
            manifest = Manifest(hole.prefix, hole.key, hole.size, hole.media, ends)
            handle = await self._vault.name(manifest, call)
            kept.append(Kept(hole.name, handle, hole.size, hole.media, hole.beginning, ends))
        return kept

    def _settled(self, holes: list[Hole], kept: list[Kept], call: CallAdmitted) -> None:
        for hole, told in zip(holes, kept, strict=True):
            hole.settled = True
            self._vault.allowance.belongs(hole.taken, (call.customer, call.key), told.ends)

    def _forget(self, spill: Spill) -> None:
        for hole in spill.holes:
            self._unsettled.pop(hole.name, None)
        self.abandon(spill)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # what could not be removed goes by itself


class Answering:
    """What a transport does with one answer that becomes too large."""

    spills: Spills | None = None
    flow: Callable[[bool], None] | None = None
    whole: Kind | None = None  # what it is where it is no JSON-RPC

    def begin(self) -> Spill:
        """Take it from here on."""
        return self._of_server.begin(self.flow, self.whole)

    async def ended(self, spill: Spill) -> bytes:
        """What is left of it. Raises `ToolbusError`."""
        return await self._of_server.ended(spill)

    def abandon(self, spill: Spill) -> None:
        """It will not end."""
        self._of_server.abandon(spill)

    @property
    def _of_server(self) -> Spills:
        assert self.spills is not None  # noqa: S101 - without, nothing becomes too large
        return self.spills


def _only(hole: Hole) -> bytes:
    return b'{"content":[{"type":"text","text":%b}]}' % hole.mark
