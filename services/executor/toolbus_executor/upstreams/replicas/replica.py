"""One of a server's replicas: kept connected, probed, and out of place while others do better."""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from time import monotonic
from typing import Any, Protocol

from toolbus_common.concurrency import end
from toolbus_common.contracts import CallAdmitted
from toolbus_common.errors import ToolbusError, UpstreamDeadError
from toolbus_executor.resilience.failure_log import Failures, shared_reason, with_pronoun
from toolbus_executor.resilience.health_probe import Health
from toolbus_executor.upstreams.base import Described, News, Upstream, leave
from toolbus_executor.upstreams.replicas.outlier_ejection import Place, Standing

log = logging.getLogger(__name__)

OPEN_SECONDS = 15.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
STEADY_SECONDS = 10.0  # a connection that held this long begins its pauses anew


class Whole(Protocol):
    """The server a replica belongs to."""

    news: News
    watched: frozenset[str]
    followed: frozenset[str]

    def join(self, described: Described) -> None:
        """Be one with the others. Raises `UpstreamFaultError` where it is another server."""
        ...

    def may_eject(self, replica: "Replica") -> bool:
        """Whether enough others are left."""
        ...

    def moved(self, replica: "Replica", reason: str) -> None:
        """A replica was ejected, or its trial went well."""
        ...

    def lost(self) -> None:
        """A replica's connection ended."""
        ...


class Replica:
    """One address of a server; `reach` makes a connection to it."""

    def __init__(
        self, label: str, weight: int, reach: Callable[[News], Upstream], whole: Whole, every: float
    ) -> None:
        self.label = label
        self.weight = weight
        self.credit = 0
        self.asked = 0
        self.under_way = 0
        self.upstream: Upstream | None = None
        self.why_not = "not connected yet"
        self.standing = Standing()
        self.health = Health(every, self, self._idle)
        self.tried = asyncio.Event()  # to connect, with whatever success
        self.tools: dict[str, str] | None = None  # digests as it lists them; None is not compared
        self.prompts: dict[str, str] = {}
        self.compared = False
        self.otherwise: frozenset[tuple[str, str]] = frozenset()  # methods and names it must not do
        self._failures = Failures()
        self._by_calls = False  # whether calls failed since the last success, and not probes alone
        self._reach = reach
        self._whole = whole
        self._probed = every > 0
        self._useless: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._keep())

    # -- taking calls ------------------------------------------------------------------------

    def can(self, call: CallAdmitted) -> bool:
        """Whether what it would do is what was listed, however well it does."""
        return self.compared and (call.method, call.tool) not in self.otherwise

    def takes(self, call: CallAdmitted) -> bool:
        """Whether it is its place to do it; on trial one call at a time is."""
        if not self._probed:
            self.standing.tried_again(monotonic())
        place = self.standing.place
        in_place = place is Place.IN or (place is Place.TRIAL and not self.under_way)
        return in_place and self.can(call)

    @property
    def in_place(self) -> bool:
        """Whether it takes calls like any other."""
        return self.compared and self.standing.place is Place.IN

    def _idle(self) -> bool:
        """Whether a probe would tell something; an ejected one is waited for."""
        return not self.under_way or self.standing.place is Place.EJECTED

    def failed(self, error: ToolbusError) -> None:
        """A call got no answer, or nonsense."""
        self._by_calls = True
        self._failed(error)

    def succeeded(self) -> None:
        """A call was answered."""
        if not self.standing.failures and self.standing.place is Place.IN:
            return
        self._by_calls = False
        if self.standing.succeeded(monotonic()):
            self._whole.moved(self, "")

    def unwell(self, error: ToolbusError) -> None:
        """A probe failed, which counts as a call that failed."""
        self._failed(error)

    def well(self) -> None:
        """A probe was answered. Who was ejected is listed and compared before it is tried again."""
        if self.standing.tried_again(monotonic()):
            self.compared, self.tools = False, None
            self._whole.news.changed()
        elif not self._by_calls:
            self.succeeded()

    def cannot_list(self, reason: str) -> None:
        """Nobody knows what it would do: it is met anew."""
        self.tools, self.compared = None, False
        if not self._useless.done():
            self._useless.set_result(f"It cannot list its tools: {reason}")

    def told(self) -> dict[str, Any]:
        """How it does, for `toolbus status`."""
        return {
            "replica": self.label,
            "weight": self.weight,
            "state": self.state,
            "reason": self.reason,
            "calls": self.asked,
            "in_flight": self.under_way,
            "ejections": self.standing.ejections,
            "differs": sorted({name for _, name in self.otherwise}),
            "failures": self._failures.told(),
            "probe": self.health.latest,
        }

    @property
    def state(self) -> str:
        """Its place in a word or two."""
        if self.upstream is None:
            return "out of reach"
        if not self.compared and self.standing.place is not Place.EJECTED:
            return "not compared"
        return self.standing.place.value

    @property
    def reason(self) -> str:
        """Why it is not in place; empty where it is."""
        if self.upstream is None:
            return self.why_not
        return "" if self.in_place else self._failures.last

    def _failed(self, error: ToolbusError) -> None:
        self._failures.note(error)
        if self.standing.failed(monotonic(), may_go=self._whole.may_eject(self)):
            self._whole.moved(self, error.reason)

    # -- its connection ----------------------------------------------------------------------

    async def _keep(self) -> None:
        """Connect, and again when that ends."""
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
        """One connection from beginning to end; why it ended."""
        upstream: Upstream | None = None
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                upstream = self._reach(self._news())
                self._whole.join(described := await upstream.open())
                await self._watch(upstream)
            self.tools = None if described.has("tools") else {}
            self.upstream = upstream
            self.tried.set()
            self._whole.news.changed()
            return await self._attend(upstream)
        except ToolbusError as error:
            return with_pronoun(shared_reason(error))
        except TimeoutError:
            return f"It did not connect within {OPEN_SECONDS:g} s."
        except Exception:
            log.exception("replica.failed_inside", extra={"replica": self.label})
            return "It answered in a way that could not be understood."
        finally:
            self.upstream, self.tools, self.compared = None, None, False
            if upstream is not None:
                await leave(upstream)

    async def _attend(self, upstream: Upstream) -> str:
        """Probe it until it is lost, or of no use."""
        probing = asyncio.create_task(self.health.watch(upstream))
        losing = asyncio.ensure_future(upstream.wait_lost())
        self._useless = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait((losing, self._useless), return_when=asyncio.FIRST_COMPLETED)
            return losing.result() if losing.done() else self._useless.result()
        finally:
            await end(probing, losing)

    async def _watch(self, upstream: Upstream) -> None:
        """Hear of what somebody heard of before it came; a server may refuse that."""
        with suppress(ToolbusError):
            if self._whole.watched:
                await upstream.watch(self._whole.watched)
            if self._whole.followed:
                await upstream.follow(self._whole.followed)

    def _news(self) -> News:
        """As the server's; what is listed anew for a call must hold for this replica too."""

        async def relist(call: CallAdmitted) -> None:
            await self._whole.news.relist(call)
            if not self.can(call):
                said = "The upstream's replica offers the tool otherwise than the others; retry."
                raise UpstreamDeadError(said, sent=False)

        return replace(self._whole.news, relist=relist)
