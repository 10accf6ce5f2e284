"""Server process with an OAuth token of one user. It ends when the account is disconnected."""

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from time import monotonic
from typing import Any

from toolbus_common.concurrency import Tasks, end
from toolbus_common.contracts import CallAdmitted, CatalogEntry
from toolbus_common.errors import ToolbusError, UpstreamDeadError
from toolbus_executor.credentials.oauth_token import Bearer, ConsentRequiredError
from toolbus_executor.credentials.token_file import TokenFile
from toolbus_executor.resilience.failure_log import why
from toolbus_executor.upstreams.base import Described, close_completely
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.mcp.stdio import StdioUpstream

log = logging.getLogger(__name__)

CHECK_SECONDS = 2.0  # interval of checks for a new token
ENDED = "Its account was disconnected, so its process was ended."


@dataclass(eq=False, slots=True)
class _Started:
    """A process that was started with a token, and the number of its calls in progress."""

    process: StdioUpstream
    file: TokenFile | None
    token: str
    calls: int = 0
    attending: asyncio.Task[None] | None = None

    async def end(self) -> None:
        """End the process and remove its token file."""
        if self.attending is not None:
            await end(self.attending)
        try:
            await close_completely(self.process)
        finally:
            if self.file is not None:
                self.file.remove()


class TokenProcess:
    """A process as an upstream. `start` creates the process and its token file, if any.

    A new token is written to the file, and the process continues. Without a file, the next call
    starts a new process, and the previous process ends after its last call. A process for listing
    can receive tokens of different accounts, so it is restarted for each token (`one_account` is
    false).
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
        self._checking: asyncio.Task[None] | None = None
        self._leaving = Tasks()
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.left_out: dict[str, str] = {}

    @property
    def sends_requests(self) -> bool:
        """Whether the server may send requests to a client during a call."""
        return self._now is not None and self._now.process.sends_requests

    @property
    def pid(self) -> int | None:
        """The process id while the process runs, otherwise None."""
        return self._now.process.pid if self._now is not None else None

    @property
    def held(self) -> dict[str, bool]:
        """The isolation in force."""
        return self._now.process.held if self._now is not None else {}

    @property
    def denied_hosts(self) -> dict[str, int]:
        """The hosts that the proxy rejected, each with the number of requests."""
        return self._now.process.denied_hosts if self._now is not None else {}

    @property
    def denied_files(self) -> dict[str, str]:
        """The hidden files that the process needs, each with `read` or `write`."""
        return self._now.process.denied_files if self._now is not None else {}

    async def open(self) -> Described:
        """Start the process with the user's current token. Raises `ConsentRequiredError`."""
        await self._bearer.needed()
        described = await self._begin()
        self._checking = asyncio.create_task(self._check())
        return described

    async def list_page(self, method: str, cursor: str | None) -> dict[str, Any]:
        """Return one page of a list."""
        return await self._present.process.list_page(method, cursor)

    def learn(self, tools: Collection[CatalogEntry]) -> None:
        """Store the definitions of the listed tools."""
        self._tools = tools
        if self._now is not None:
            self._now.process.learn(tools)

    async def call(self, call: CallAdmitted, seconds: float, caller: Caller) -> bytes:
        """Send a call to the process with the current token, and return its result.

        Raises `ConsentRequiredError`.
        """
        began = monotonic()
        async with asyncio.timeout(seconds):
            started = await self._with_token()
        started.calls += 1
        try:
            return await started.process.call(call, seconds - (monotonic() - began), caller)
        finally:
            started.calls -= 1
            self._leave_idle(started)

    async def probe(self) -> None:
        """Check that the process responds."""
        await self._present.process.probe()

    async def watch(self, uris: frozenset[str]) -> None:
        """Subscribe to changes of these resources."""
        self._watched = uris
        await self._present.process.watch(uris)

    async def follow(self, tasks: frozenset[str]) -> None:
        """Subscribe to status changes of these tasks."""
        self._followed = tasks
        await self._present.process.follow(tasks)

    async def wait_lost(self) -> str:
        """Wait until the process ends or its token is revoked, and return the reason."""
        return await asyncio.shield(self._lost)

    async def close(self) -> None:
        """End the process."""
        self._lose("closed")
        if self._checking is not None:
            await end(self._checking)
        started, self._now = self._now, None
        if started is not None:
            await started.end()
        await self._leaving.finish()

    # -- tokens --------------------------------------------------------------------------------

    @property
    def _present(self) -> _Started:
        if self._now is None:
            raise UpstreamDeadError("The upstream's process is not running; retry.", sent=False)
        return self._now

    async def _with_token(self) -> _Started:
        if not self._bearer.now():
            try:
                await self._bearer.needed()
            except ConsentRequiredError:
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
        """Write the current token to the process's file, or start another process with it."""
        if self._one_account and before.file is not None:
            before.token = self._bearer.token
            before.file.write(before.token)
            return
        try:
            await self._begin()
            await self._present.process.watch(self._watched)
            await self._present.process.follow(self._followed)
        except ToolbusError as error:
            error.data["sent"] = False  # nothing of the call was sent
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

    async def _check(self) -> None:
        """Poll the token. End the process if the token is revoked; pass a new token to it."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            line = await self._bearer.line()
            started = self._now
            if started is None:
                continue
            if not line:
                self._disconnect()
            elif started.token != self._bearer.token and not self._starts_with_calls(started):
                await self._follow_token()

    def _starts_with_calls(self, started: _Started) -> bool:
        """Return whether the process for a new token starts with the next call, not at once."""
        return self._one_account and started.file is None

    async def _follow_token(self) -> None:
        try:
            await self._with_token()
        except (ToolbusError, TimeoutError) as error:
            self._lose(f"It could not be started again with another token: {why(error)}.")

    def _disconnect(self) -> None:
        started, self._now = self._now, None
        if started is not None:
            self._leaving.start(started.end())
        self._lose(ENDED)

    def _leave_idle(self, started: _Started) -> None:
        """End a replaced process if it has no calls in progress."""
        if started is not self._now and not started.calls:
            self._leaving.start(started.end())

    async def _attend(self, started: _Started) -> None:
        reason = await started.process.wait_lost()
        if started is self._now:
            self._lose(reason)

    def _lose(self, reason: str) -> None:
        if not self._lost.done():
            self._lost.set_result(reason)
