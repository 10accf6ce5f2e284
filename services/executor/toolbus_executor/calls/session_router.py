"""Route the calls of one server to the executor that holds their session."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from time import perf_counter, time
from typing import Protocol

from toolbus_common.contracts import CallAdmitted
from toolbus_common.contracts.replies import ReplyChannel
from toolbus_common.errors import ToolbusError, UpstreamDeadError
from toolbus_executor.calls.outcome_reporter import Reports
from toolbus_executor.upstreams.base import separates
from toolbus_executor.upstreams.sessions.owners import Owner
from toolbus_executor.upstreams.sessions.separate_sessions import Separation
from toolbus_executor.upstreams.sessions.session_claims import Places

AGAIN_SECONDS = 0.2  # between two looks at a holder that does not answer

FindHolder = Callable[[str], Awaitable[str]]
# Hands a call to the process that keeps what it needs; the last is for "nobody is there".
Forward = Callable[[CallAdmitted, str, Callable[[], Awaitable[None]]], Awaitable[None]]


class Runs(Protocol):
    """Whoever runs the calls of the server here, and passes them on."""

    forward: Forward | None
    reports: Reports

    async def run_here(self, call: CallAdmitted, reply: ReplyChannel) -> None:
        """Handle a call whose session is here."""
        ...


class Placing:
    """One server's sessions among the executors."""

    def __init__(self, server: str, sessions: Separation, places: Places) -> None:
        self._server = server
        self._pool = sessions.pool
        self._ownership = sessions.ownership
        self._is_process = sessions.is_process
        self._places = places
        self._releasing: set[asyncio.Task[None]] = set()
        self._using: Counter[str] = Counter()  # calls between their placing and their end
        self._pool.on_left = self._left

    def applies(self, upstream: object | None, call: CallAdmitted) -> bool:
        """Whether a call belongs to a session, as far as is known before the server is met."""
        return self._is_process if upstream is None else separates(upstream, call)

    async def run(
        self, runner: Runs, call: CallAdmitted, reply: ReplyChannel, find: FindHolder | None = None
    ) -> None:
        """Handle a call where its session is: here, or in the executor that holds it."""
        began = perf_counter()
        try:
            with self.using(call) as key:
                holder = await (find or self.holder)(key)
                if holder == self._places.instance or runner.forward is None:
                    await runner.run_here(call, reply)
                    return

            async def nobody() -> None:
                after = partial(self.holder_after, gone=holder, call=call)
                await self.run(runner, call, reply, after)

            await runner.forward(call, holder, nobody)
        except ToolbusError as error:
            await runner.reports.failed(call, reply, error, began)

    @contextmanager
    def using(self, call: CallAdmitted) -> Iterator[str]:
        """Keep a call's claim while the call is under way; the key of the claim."""
        owner = self._ownership.of(call).id
        self._using[owner] += 1
        try:
            yield self._key(owner)
        finally:
            self._using[owner] -= 1
            if not self._using[owner]:
                del self._using[owner]
                if not self._pool.has(owner):
                    self._release(owner)

    async def holder(self, key: str) -> str:
        """Return the executor that holds a session. Raises `BusDownError`."""
        return self._places.known(key) or await self._places.holder(key)

    async def holder_after(self, key: str, gone: str, call: CallAdmitted) -> str:
        """Return the holder once the one that did not answer is known to be gone, or is back.

        Raises:
            BusDownError: nobody can tell now.
            UpstreamDeadError: that did not come to an end before the call's deadline.

        """
        self._places.forget(key)
        found = await self._places.holder(key)
        if found != gone:
            return found
        if time() + AGAIN_SECONDS >= call.deadline:
            raise UpstreamDeadError(
                f"The executor that holds the caller's session at {self._server} does not answer; "
                "retry shortly.",
                sent=False,
            )
        await asyncio.sleep(AGAIN_SECONDS)
        self._places.forget(key)
        return await self._places.holder(key)

    async def close(self) -> None:
        """Wait until the claims of sessions that ended are given up."""
        if self._releasing:
            await asyncio.wait(self._releasing)

    def taken(self, key: str) -> None:
        """Another executor took a session over: what is left of it here is of no use."""
        server, _, owner = key.rpartition(".")
        if server == self._server:
            self._pool.end_of(owner)

    def _left(self, owner: Owner) -> None:
        if owner.id not in self._using:
            self._release(owner.id)

    def _release(self, owner: str) -> None:
        def needed() -> bool:
            return owner in self._using or self._pool.has(owner)

        if not needed():
            task = asyncio.create_task(self._places.release(self._key(owner), needed))
            self._releasing.add(task)
            task.add_done_callback(self._releasing.discard)

    def _key(self, owner: str) -> str:
        return f"{self._server}.{owner}"
