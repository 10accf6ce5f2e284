"""Router of one server's calls to the executor that holds their session."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from time import perf_counter, time
from typing import Protocol

from toolbus_common.concurrency import Tasks
from toolbus_common.contracts import CallAdmitted
from toolbus_common.contracts.replies import CallContext, Reply
from toolbus_common.errors import ToolbusError, UpstreamDeadError
from toolbus_executor.calls.outcome_reporter import OutcomeReporter
from toolbus_executor.upstreams.base import separates
from toolbus_executor.upstreams.sessions.owners import Owner
from toolbus_executor.upstreams.sessions.separate_sessions import Separation
from toolbus_executor.upstreams.sessions.session_claims import SessionClaims

AGAIN_SECONDS = 0.2  # pause between lookups of a holder that does not respond

FindHolder = Callable[[str], Awaitable[str]]
# Forwards a call to the executor with this id. The last argument is awaited if this executor no
# longer exists.
Forward = Callable[[CallAdmitted, str, Callable[[], Awaitable[None]]], Awaitable[None]]


class LocalHandler(Protocol):
    """Call handler of the server in this process."""

    forward: Forward | None
    outcomes: OutcomeReporter

    def run_here(self, call: CallAdmitted, context: CallContext) -> Awaitable[Reply]:
        """Handle a call whose session is here."""
        ...


class SessionRouter:
    """Router of calls to the executors that hold the sessions of one server."""

    def __init__(self, server: str, sessions: Separation, claims: SessionClaims) -> None:
        self._server = server
        self._pool = sessions.pool
        self._ownership = sessions.ownership
        self._is_process = sessions.is_process
        self._claims = claims
        self._releasing = Tasks()
        self._using: Counter[str] = Counter()  # calls in progress per session owner
        self._pool.on_left = self._on_left

    def applies(self, upstream: object | None, call: CallAdmitted) -> bool:
        """Return whether a call needs a session, as far as this is known before connecting."""
        return self._is_process if upstream is None else separates(upstream, call)

    async def run(
        self,
        handler: LocalHandler,
        call: CallAdmitted,
        context: CallContext,
        find: FindHolder | None = None,
    ) -> Reply | None:
        """Handle a call in the executor that holds its session, which may be this one.

        The reply is None if another executor holds the session.
        """
        began = perf_counter()
        try:
            with self.using(call) as key:
                holder = await (find or self.holder)(key)
                if holder == self._claims.instance or handler.forward is None:
                    return await handler.run_here(call, context)

            async def on_undelivered() -> None:
                after = partial(self.holder_after, gone=holder, call=call)
                reply = await self.run(handler, call, context, after)
                if reply is not None:
                    await context.send(reply)

            await handler.forward(call, holder, on_undelivered)
        except ToolbusError as error:
            return await handler.outcomes.failed(call, error, began)
        return None

    @contextmanager
    def using(self, call: CallAdmitted) -> Iterator[str]:
        """Retain the claim on a call's session during the call, and yield the claim's key."""
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
        return self._claims.known(key) or await self._claims.holder(key)

    async def holder_after(self, key: str, gone: str, call: CallAdmitted) -> str:
        """Return the holder of a session after `gone` did not respond.

        `gone` itself is returned if it still holds the session after a pause.

        Raises:
            BusDownError: the claims cannot be read now.
            UpstreamDeadError: the call's deadline is too near for another lookup.

        """
        self._claims.forget(key)
        found = await self._claims.holder(key)
        if found != gone:
            return found
        if time() + AGAIN_SECONDS >= call.deadline:
            raise UpstreamDeadError(
                f"The executor that holds the caller's session at {self._server} does not respond; "
                "retry shortly.",
                sent=False,
            )
        await asyncio.sleep(AGAIN_SECONDS)
        self._claims.forget(key)
        return await self._claims.holder(key)

    async def close(self) -> None:
        """Wait until the claims of ended sessions are released."""
        await self._releasing.finish()

    def drop_taken(self, key: str) -> None:
        """Close the connections of a session that another executor has taken over."""
        server, _, owner = key.rpartition(".")
        if server == self._server:
            self._pool.end_of(owner)

    def _on_left(self, owner: Owner) -> None:
        if owner.id not in self._using:
            self._release(owner.id)

    def _release(self, owner: str) -> None:
        def needed() -> bool:
            return owner in self._using or self._pool.has(owner)

        if not needed():
            self._releasing.start(self._claims.release(self._key(owner), needed))

    def _key(self, owner: str) -> str:
        return f"{self._server}.{owner}"
