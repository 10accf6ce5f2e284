"""One replica. It is reconnected and probed, and ejected if it fails more often than the others."""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from time import monotonic
from typing import Any, Protocol

from toolbus_common.concurrency import end
from toolbus_common.contracts import (
    CallAdmitted,
)
from toolbus_common.errors import (
    ToolbusError,
    UpstreamDeadError,
)
from toolbus_executor.resilience.failure_log import (
    FailureLog,
    shared_reason,
    with_pronoun,
)
from toolbus_executor.resilience.health_probe import Health
from toolbus_executor.upstreams.base import (
    Described,
    Upstream,
    UpstreamCallbacks,
    close_completely,
)
from toolbus_executor.upstreams.replicas.outlier_ejection import Place, Standing

log = logging.getLogger(__name__)

OPEN_SECONDS = 15.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
STEADY_SECONDS = 10.0  # the pause is reset after a connection of this length


class Whole(Protocol):
    """The server that a replica belongs to."""

    news: UpstreamCallbacks
    watched: frozenset[str]
    followed: frozenset[str]

    def join(self, described: Described) -> None:
        """Accept a connected replica. Raises `UpstreamInvalidError` if it is a different server."""
        ...

    def may_eject(self, replica: "Replica") -> bool:
        """Return whether this replica may be ejected."""
        ...

    def moved(self, replica: "Replica", reason: str) -> None:
        """Report that a replica was ejected, or that its trial succeeded."""
        ...

    def lost(self) -> None:
        """Handle the end of a replica's connection."""
        ...


class Replica:
    """One address of a server. `reach` creates a connection to it."""

    def __init__(
        self,
        label: str,
        weight: int,
        reach: Callable[[UpstreamCallbacks], Upstream],
        whole: Whole,
        every: float,
    ) -> None:
        self.label = label
        self.weight = weight
        self.credit = 0
        self.call_count = 0
        self.in_progress = 0
        self.upstream: Upstream | None = None
        self.why_not = "not connected yet"
        self.standing = Standing()
        self.health = Health(every, self, self._idle)
        self.tried = asyncio.Event()  # set after the first attempt to connect
        self.tools: dict[str, str] | None = None  # digests of its list; None without a list
        self.prompts: dict[str, str] = {}
        self.compared = False
        # Calls that this replica must not receive, as pairs of a method and a name.
        self.otherwise: frozenset[tuple[str, str]] = frozenset()
        self._failures = FailureLog()
        self._by_calls = False  # whether a call has failed since the last success
        self._reach = reach
        self._whole = whole
        self._probed = every > 0
        self._useless: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._stay_connected())

    # -- taking calls ------------------------------------------------------------------------

    def can(self, call: CallAdmitted) -> bool:
        """Return whether this replica offers the target of the call exactly as listed."""
        return self.compared and (call.method, call.tool) not in self.otherwise

    def takes(self, call: CallAdmitted) -> bool:
        """Return whether this replica may receive the call now.

        A replica on trial receives one call at a time.
        """
        if not self._probed:
            self.standing.tried_again(monotonic())
        position = self.standing.place
        in_place = position is Place.IN or (position is Place.TRIAL and not self.in_progress)
        return in_place and self.can(call)

    @property
    def in_place(self) -> bool:
        """Whether the replica is active and its lists were compared."""
        return self.compared and self.standing.place is Place.IN

    def _idle(self) -> bool:
        """Return whether the replica may be probed. An ejected replica is always probed."""
        return not self.in_progress or self.standing.place is Place.EJECTED

    def failed(self, error: ToolbusError) -> None:
        """Record a call without a response, or with an invalid response."""
        self._by_calls = True
        self._failed(error)

    def succeeded(self) -> None:
        """Record a call with a response."""
        if not self.standing.failures and self.standing.place is Place.IN:
            return
        self._by_calls = False
        if self.standing.succeeded(monotonic()):
            self._whole.moved(self, "")

    def unwell(self, error: ToolbusError) -> None:
        """Record a failed probe as a failed call."""
        self._failed(error)

    def well(self) -> None:
        """Record a successful probe. An ejected replica is listed and compared before its trial."""
        if self.standing.tried_again(monotonic()):
            self.compared, self.tools = False, None
            self._whole.news.on_lists_changed()
        elif not self._by_calls:
            self.succeeded()

    def cannot_list(self, reason: str) -> None:
        """Reconnect a replica that cannot list its tools."""
        self.tools, self.compared = None, False
        if not self._useless.done():
            self._useless.set_result(f"It cannot list its tools: {reason}")

    def status(self) -> dict[str, Any]:
        """Return the row of this replica in `toolbus status`."""
        return {
            "replica": self.label,
            "weight": self.weight,
            "state": self.state,
            "reason": self.reason,
            "calls": self.call_count,
            "in_flight": self.in_progress,
            "ejections": self.standing.ejections,
            "differs": sorted({name for _, name in self.otherwise}),
            "failures": self._failures.recent(),
            "probe": self.health.latest,
        }

    @property
    def state(self) -> str:
        """The state of the replica in one or two words."""
        if self.upstream is None:
            return "unreachable"
        if not self.compared and self.standing.place is not Place.EJECTED:
            return "not compared"
        return self.standing.place.value

    @property
    def reason(self) -> str:
        """The reason why the replica is not active; empty if it is active."""
        if self.upstream is None:
            return self.why_not
        return "" if self.in_place else self._failures.last

    def _failed(self, error: ToolbusError) -> None:
        self._failures.note(error)
        if self.standing.failed(monotonic(), may_go=self._whole.may_eject(self)):
            self._whole.moved(self, error.reason)

    # -- its connection ----------------------------------------------------------------------

    async def _stay_connected(self) -> None:
        """Connect, and reconnect whenever the connection ends."""
        pause = FIRST_PAUSE
        while True:
            began = monotonic()
            self.why_not = await self._connection()
            self.tried.set()
            self._whole.lost()
            if monotonic() - began > STEADY_SECONDS:
                pause = FIRST_PAUSE
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311
            pause = min(LONGEST_PAUSE, pause * 2)

    async def _connection(self) -> str:
        """Run one connection until it ends, and return the reason of its end."""
        upstream: Upstream | None = None
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                upstream = self._reach(self._callbacks())
                self._whole.join(described := await upstream.open())
                await self._restore_subscriptions(upstream)
            self.tools = None if described.has("tools") else {}
            self.upstream = upstream
            self.tried.set()
            self._whole.news.on_lists_changed()
            return await self._probe_until_lost(upstream)
        except ToolbusError as error:
            return with_pronoun(shared_reason(error))
        except TimeoutError:
            return f"It did not connect within {OPEN_SECONDS:g} s."
        except Exception:
            log.exception("replica.internal_error", extra={"replica": self.label})
            return "It sent a response that could not be processed; see the executor log."
        finally:
            self.upstream, self.tools, self.compared = None, None, False
            if upstream is not None:
                await close_completely(upstream)

    async def _probe_until_lost(self, upstream: Upstream) -> str:
        """Probe the connection until it is lost or cannot list, and return the reason."""
        probing = asyncio.create_task(self.health.watch(upstream))
        losing = asyncio.ensure_future(upstream.wait_lost())
        self._useless = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait((losing, self._useless), return_when=asyncio.FIRST_COMPLETED)
            return losing.result() if losing.done() else self._useless.result()
        finally:
            await end(probing, losing)

    async def _restore_subscriptions(self, upstream: Upstream) -> None:
        """Restore the existing subscriptions. The server can reject them."""
        with suppress(ToolbusError):
            if self._whole.watched:
                await upstream.watch(self._whole.watched)
            if self._whole.followed:
                await upstream.follow(self._whole.followed)

    def _callbacks(self) -> UpstreamCallbacks:
        """Return the server's callbacks.

        After `relist`, the replica must still offer the tool as listed.
        """

        async def relist(call: CallAdmitted) -> None:
            await self._whole.news.relist(call)
            if not self.can(call):
                reason = (
                    "The replica defines the tool differently from the others; retry to reach "
                    "another replica."
                )
                raise UpstreamDeadError(reason, sent=False)

        return replace(self._whole.news, relist=relist)
