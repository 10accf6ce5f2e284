"""A process that is given a token: one user's alone, and ended with the user's connection."""

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from time import monotonic
from typing import Any

from toolbus_common.concurrency import end
from toolbus_common.contracts import CallAdmitted, CatalogEntry
from toolbus_common.errors import ToolbusError, UpstreamDeadError
from toolbus_executor.credentials.oauth_token import Bearer, UnconsentedError
from toolbus_executor.credentials.token_file import TokenFile
from toolbus_executor.resilience.failure_log import why
from toolbus_executor.upstreams.base import Described, leave
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.mcp.stdio import StdioUpstream

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0  # after which it is looked whether the token is still the same
ENDED = "Its account was disconnected, so its process was ended."


@dataclass(eq=False, slots=True)
class _Started:
    """A process that was started with a token, and how many calls it has under way."""

    process: StdioUpstream
    file: TokenFile | None
    token: str
    under_way: int = 0
    attending: asyncio.Task[None] | None = None

    async def end(self) -> None:
        """End it; its token is gone with it."""
        if self.attending is not None:
            await end(self.attending)
        try:
            await leave(self.process)
        finally:
            if self.file is not None:
                self.file.remove()


class TokenProcess:
    """A process as an upstream. `start` makes it for a token, with the file that has it, if any.

    Another token is written to that file, and the process goes on; without one the next call
    starts another process, and the one before ends with its last call. What only lists may be given
    one account's token after another's, so it is started again for each.
    """

    def __init__(
        self,
        bearer: Bearer,
        start: Callable[[str], tuple[StdioUpstream, TokenFile | None]],
        *,
        one_account: bool,
    ) -> None:
        self._bearer = bearer
        self._start = start
        self._one_account = one_account
        self._now: _Started | None = None
        self._turn = asyncio.Lock()
        self._tools: Collection[CatalogEntry] = ()
        self._watched: frozenset[str] = frozenset()
        self._followed: frozenset[str] = frozenset()
        self._looking: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.left_out: dict[str, str] = {}

    @property
    def asks(self) -> bool:
        """Whether the server may ask back in the middle of a call."""
        return self._now is not None and self._now.process.asks

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        return self._now.process.pid if self._now is not None else None

    @property
    def held(self) -> dict[str, bool]:
        """What its process is held to on this machine, and what not."""
        return self._now.process.held if self._now is not None else {}

    @property
    def refused_hosts(self) -> dict[str, int]:
        """Hosts it wanted to reach and may not."""
        return self._now.process.refused_hosts if self._now is not None else {}

    @property
    def refused_files(self) -> dict[str, str]:
        """Files it missed and is not shown."""
        return self._now.process.refused_files if self._now is not None else {}

    async def open(self) -> Described:
        """Start it with the token that is at hand. Raises `UnconsentedError`."""
        await self._bearer.needed()
        described = await self._begin()
        self._looking = asyncio.create_task(self._look())
        return described

    async def list_page(self, method: str, cursor: str | None) -> dict[str, Any]:
        """One page of a list."""
        return await self._present.process.list_page(method, cursor)

    def learn(self, tools: Collection[CatalogEntry]) -> None:
        """Take note of the tools as listed."""
        self._tools = tools
        if self._now is not None:
            self._now.process.learn(tools)

    async def call(self, call: CallAdmitted, seconds: float, caller: Caller) -> bytes:
        """Ask the process, which has the token of now. Raises `UnconsentedError`."""
        began = monotonic()
        async with asyncio.timeout(seconds):
            started = await self._with_token()
        started.under_way += 1
        try:
            return await started.process.call(call, seconds - (monotonic() - began), caller)
        finally:
            started.under_way -= 1
            self._leave_idle(started)

    async def probe(self) -> None:
        """Ask whether it is there."""
        await self._present.process.probe()

    async def watch(self, uris: frozenset[str]) -> None:
        """Hear of changes of these resources."""
        self._watched = uris
        await self._present.process.watch(uris)

    async def follow(self, tasks: frozenset[str]) -> None:
        """Hear of these tasks."""
        self._followed = tasks
        await self._present.process.follow(tasks)

    async def wait_lost(self) -> str:
        """Wait for its end, or the end of its token."""
        return await asyncio.shield(self._lost)

    async def close(self) -> None:
        """End it."""
        self._lose("closed")
        if self._looking is not None:
            await end(self._looking)
        started, self._now = self._now, None
        if started is not None:
            await started.end()
        if self._leaving:
            await asyncio.wait(self._leaving)

    # -- with which token ----------------------------------------------------------------------

    @property
    def _present(self) -> _Started:
        if self._now is None:
            raise UpstreamDeadError("The upstream's process is not running.", sent=False)
        return self._now

    async def _with_token(self) -> _Started:
        if not self._bearer.now():
            try:
                await self._bearer.needed()
            except UnconsentedError:
                self._disconnect()
                raise
        started = self._present
        if started.token == self._bearer.token:
            return started
        async with self._turn:
            started = self._present
            if started.token != self._bearer.token:
                await self._renew(started)
            return self._present

    async def _renew(self, before: _Started) -> None:
        """See that the process has the token that is at hand now."""
        if self._one_account and before.file is not None:
            before.token = self._bearer.token
            before.file.write(before.token)
            return
        try:
            await self._begin()
            await self._present.process.watch(self._watched)
            await self._present.process.follow(self._followed)
        except ToolbusError as error:
            error.data["sent"] = False  # nothing of the call itself
            raise
        finally:
            self._leave_idle(before)

    async def _begin(self) -> Described:
        token = self._bearer.token
        process, file = self._start(token)
        made = _Started(process, file, token)
        try:
            described = await process.open()
        except BaseException:
            await made.end()
            raise
        process.learn(self._tools)
        self._now = made
        made.attending = asyncio.create_task(self._attend(made))
        return described

    async def _look(self) -> None:
        """End the process when its token is taken back; write the next one where it reads it."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            line = await self._bearer.line()
            started = self._now
            if started is None:
                continue
            if not line:
                self._disconnect()
            elif started.token != self._bearer.token and not self._starts_with_calls(started):
                await self._follow_token()

    def _starts_with_calls(self, started: _Started) -> bool:
        """Whether the next call is early enough to start it with the next token."""
        return self._one_account and started.file is None

    async def _follow_token(self) -> None:
        try:
            await self._with_token()
        except (ToolbusError, TimeoutError) as error:
            self._lose(f"It could not be started again with another token: {why(error)}.")

    def _disconnect(self) -> None:
        started, self._now = self._now, None
        if started is not None:
            self._leave_later(started)
        self._lose(ENDED)

    def _leave_idle(self, started: _Started) -> None:
        """End a process that another one has replaced, once it has no calls."""
        if started is not self._now and not started.under_way:
            self._leave_later(started)

    def _leave_later(self, started: _Started) -> None:
        task = asyncio.create_task(started.end())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _attend(self, started: _Started) -> None:
        reason = await started.process.wait_lost()
        if started is self._now:
            self._lose(reason)

    def _lose(self, reason: str) -> None:
        if not self._lost.done():
            self._lost.set_result(reason)
