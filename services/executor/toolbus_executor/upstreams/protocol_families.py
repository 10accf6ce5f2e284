"""A server that speaks both protocol families: each call is made in the family of its caller.

The newest family is met first, and lists. The other one is met when a caller first needs it: what a
server says of the newest does not tell whether there is another, and one that has none should
hear no handshake. A process may speak only the family it first heard, so another is started.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from time import monotonic
from typing import Any, cast

from toolbus_common.concurrency import end
from toolbus_common.config import Server
from toolbus_common.contracts import CallAdmitted, CatalogEntry, Handshake
from toolbus_common.errors import ToolbusError
from toolbus_executor.resilience.failure_log import why
from toolbus_executor.resilience.health_probe import AwayError
from toolbus_executor.upstreams.base import (
    Described,
    News,
    NoSuchFamilyError,
    Upstream,
    asks,
    leave,
    separates,
)
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.listing import TOOLS, every_page
from toolbus_executor.upstreams.sessions.separate_sessions import Separated, Separation

log = logging.getLogger(__name__)

MEET_SECONDS = {False: 5.0, True: 20.0}  # over HTTP, and of a process, which has to start
AGAIN_SECONDS = 30.0  # until the other family is tried again, where it may be offered after all
MOST_TASKS = 5_000

Make = Callable[[Server, News], Upstream]


def reached_in_families(
    declared: Server,
    news: News,
    make: Make,
    separation: Separation | None = None,
    place: str = "",
) -> Upstream:
    """A server by `make`, in the family its declaration names, or in both where it has both."""

    def over(declared: Server) -> Upstream:
        if separation is None:
            return make(declared, news)
        return separation.over(news, lambda heard: make(declared, heard), place, declared.protocol)

    if declared.protocol != "auto" or declared.sse or not declared.has_sessions:
        return over(declared)
    other = declared.model_copy(update={"protocol": "legacy"})
    return BothFamilies(over(declared), lambda: over(other), news, is_process=declared.is_process)


@dataclass(slots=True)
class _Other:
    """The server as it was met with a handshake."""

    upstream: Upstream
    described: Described
    tasks: dict[str, str] = field(default_factory=dict)


class BothFamilies:
    """An upstream like any other; `other` makes the way in the family with a handshake."""

    def __init__(
        self, first: Upstream, other: Callable[[], Upstream], news: News, *, is_process: bool
    ) -> None:
        self._news = news
        self._first = first
        self._make_other = other
        self._is_process = is_process
        self._other: _Other | None = None
        self._modern = False  # so that there may be another family
        self._again_at = 0.0
        self._turn = asyncio.Lock()
        self._attending: asyncio.Task[None] | None = None
        self._tools: Collection[CatalogEntry] = ()

    @property
    def left_out(self) -> dict[str, str]:
        """Of its latest lists, and why."""
        return self._first.left_out

    @left_out.setter
    def left_out(self, told: dict[str, str]) -> None:
        self._first.left_out = told

    @property
    def asks(self) -> bool:
        """Whether the server may ask back in the middle of a call, in the family that lists."""
        return self._first.asks

    @property
    def separates(self) -> bool:
        """Whether each owner has a session of its own, in any family."""
        both = (self._first, self._other.upstream if self._other else None)
        return any(getattr(each, "separates", False) for each in both)

    @property
    def lists(self) -> Upstream:
        """The family that lists and is probed."""
        return self._first

    @property
    def handshake(self) -> Handshake | None:
        """What it says of itself in the other family, as far as it was met there."""
        if self._other is None:
            return None
        told = self._other.described
        return Handshake(
            version=told.version,
            instructions=told.instructions,
            capabilities=told.capabilities,
            server_info=told.info,
            tasks=self._other.tasks,
        )

    @property
    def pid(self) -> int | None:
        """The process that lists, while there is one."""
        return getattr(self._first, "pid", None)

    @property
    def held(self) -> dict[str, bool]:
        """What its process is held to on this machine."""
        return getattr(self._first, "held", {})

    @property
    def refused_hosts(self) -> dict[str, int]:
        """Hosts its processes wanted to reach and may not."""
        return self._of_both("refused_hosts")

    @property
    def refused_files(self) -> dict[str, str]:
        """Files its processes missed."""
        return self._of_both("refused_files")

    def asks_in(self, call: CallAdmitted) -> bool:
        """Whether the server may ask back in the middle of this call."""
        if not self._may_meet(call):
            return asks(self._first, call)
        return True if self._other is None else asks(self._other.upstream, call)

    def separates_in(self, call: CallAdmitted) -> bool:
        """Whether this call belongs to a session of its owner's."""
        if not self._may_meet(call) or self._other is None:
            return separates(self._first, call)
        return separates(self._other.upstream, call)

    def spared(self, call: CallAdmitted) -> bool:
        """Whether a failed call says nothing of others."""
        wanted = self._other.upstream if self._other and self._may_meet(call) else self._first
        return isinstance(wanted, Separated) and wanted.spared(call)

    async def open(self) -> Described:
        """Meet the server in its newest family."""
        described = await self._first.open()
        self._modern = described.family == "modern" and not described.ours
        return described

    async def list_page(self, method: str, cursor: str | None) -> dict[str, Any]:
        """One page of a list; with the tools, over HTTP, the other family is looked at again."""
        page = await self._first.list_page(method, cursor)
        again = self._other is not None and not self._is_process
        if again and method == TOOLS.method and cursor is None:
            await self._look_again()
        return page

    def learn(self, tools: Collection[CatalogEntry]) -> None:
        """Take note of the tools as listed."""
        self._tools = tools
        self._first.learn(tools)
        self._teach()

    def call(
        self, call: CallAdmitted, seconds: float, caller: Caller
    ) -> Coroutine[Any, Any, bytes]:
        """Ask in the family of the caller."""
        if not self._may_meet(call):
            return self._first.call(call, seconds, caller)
        if self._other is not None:
            return self._other.upstream.call(call, seconds, caller)
        return self._met_and_called(call, seconds, caller)

    async def hear(self, call: CallAdmitted, seconds: float) -> bytes:
        """Have the server tell the call's owner of a resource or a task."""
        use = self._other.upstream if self._other and self._may_meet(call) else self._first
        return await cast("Separated", use).hear(call, seconds)

    async def probe(self) -> None:
        """Ask whether the server is there."""
        probe = getattr(self._first, "probe", None)
        if probe is None:
            raise AwayError
        await probe()

    async def watch(self, uris: frozenset[str]) -> None:
        """Hear of changes of these resources, in whichever family tells."""
        await self._all(lambda upstream: upstream.watch(uris))

    async def follow(self, tasks: frozenset[str]) -> None:
        """Hear of these tasks, in whichever family tells."""
        await self._all(lambda upstream: upstream.follow(tasks))

    async def wait_lost(self) -> str:
        """Wait until the server is of no more use as it was met."""
        return await self._first.wait_lost()

    async def close(self) -> None:
        """Leave, in both families."""
        self._again_at = inf
        if self._attending is not None:
            await end(self._attending)
        other, self._other = self._other, None
        await asyncio.gather(
            leave(self._first), *((leave(other.upstream),) if other is not None else ())
        )

    # -- the other family ----------------------------------------------------------------------

    def _may_meet(self, call: CallAdmitted) -> bool:
        """Whether a call is to be made in the other family, if the server offers that."""
        if not self._modern or not call.shakes_hands:
            return False
        return self._other is not None or monotonic() >= self._again_at

    async def _met_and_called(self, call: CallAdmitted, seconds: float, caller: Caller) -> bytes:
        """The first call that wants the other family; without it, the call is made in this one."""
        began = monotonic()
        async with asyncio.timeout(seconds):
            other = await self._meet()
        if other is not None:
            self._news.changed()  # what it says of itself there is published, too
        use = self._first if other is None else other.upstream
        return await use.call(call, seconds - (monotonic() - began), caller)

    async def _meet(self) -> _Other | None:
        """The server in the other family; None where it does not offer that, or not now."""
        async with self._turn:
            if self._other is not None or monotonic() < self._again_at:
                return self._other
            made = self._make_other()
            try:
                async with asyncio.timeout(MEET_SECONDS[self._is_process]):
                    met = _Other(made, await made.open())
                    met.tasks = await _tasks(met)
            except BaseException as error:
                await leave(made)
                if not isinstance(error, ToolbusError | TimeoutError):
                    raise
                refused = isinstance(error, NoSuchFamilyError)
                self._again_at = inf if refused else monotonic() + AGAIN_SECONDS
                log.info("server.one_family", extra={"final": refused, "reason": why(error)})
                return None
            self._other = met
            self._teach()
            self._attending = asyncio.create_task(self._attend(met))
        return met

    async def _attend(self, met: _Other) -> None:
        """Leave the other family when it is lost: the next call that wants it meets it anew."""
        await met.upstream.wait_lost()
        await self._drop(met)

    async def _drop(self, met: _Other) -> None:
        if self._other is met:
            self._other = None
            await leave(met.upstream)

    async def _look_again(self) -> None:
        """See whether the other family is as it was, now that the server is listed anew."""
        met = self._other
        if met is None:
            return
        try:
            async with asyncio.timeout(MEET_SECONDS[False]):
                met.tasks = await _tasks(met)
        except (ToolbusError, TimeoutError):
            await self._drop(met)
            await self._meet()

    def _teach(self) -> None:
        """Tell the other family of the tools, with what it says itself of running them as tasks."""
        if self._other is None:
            return
        tasks = self._other.tasks
        self._other.upstream.learn([_with_task(each, tasks.get(each.name)) for each in self._tools])

    async def _all(self, ask: Callable[[Upstream], Awaitable[None]]) -> None:
        """Ask both families. Raises the first error if neither does it."""
        if self._other is None:
            await ask(self._first)
            return
        told = await asyncio.gather(
            ask(self._first), ask(self._other.upstream), return_exceptions=True
        )
        errors = [each for each in told if isinstance(each, BaseException)]
        if len(errors) == len(told):
            raise errors[0]

    def _of_both(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for each in (self._first, self._other.upstream if self._other else None):
            found |= getattr(each, name, {})
        return found


async def _tasks(met: _Other) -> dict[str, str]:
    """The tools that may run as tasks in the handshake family, by what each says of it."""
    if not met.described.has(TOOLS.capability):
        return {}
    found: dict[str, str] = {}
    for entry in (await every_page(TOOLS, met.upstream.list_page))[:MOST_TASKS]:
        with suppress(AttributeError, KeyError, TypeError):
            support, name = entry["execution"]["taskSupport"], entry["name"]
            if support in ("optional", "required") and isinstance(name, str):
                found[name] = support
    return found


def _with_task(offered: CatalogEntry, support: str | None) -> CatalogEntry:
    if support is None:
        return offered
    definition = {**offered.definition, "execution": {"taskSupport": support}}
    return offered.model_copy(update={"definition": definition})
