"""A server whose sessions are kept apart: one lists, and each owner has its own."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic
from typing import Any

from toolbus_common.config import Server
from toolbus_common.contracts import CallAdmitted, CatalogEntry, ClientMessage
from toolbus_common.errors import OverloadedError, ToolbusError
from toolbus_executor.mcp_messages.client_capabilities import EVERYTHING, Kinds, kinds_of
from toolbus_executor.resilience.health_probe import AwayError
from toolbus_executor.upstreams.base import Described, News
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.mcp.http import HttpUpstream
from toolbus_executor.upstreams.mcp.stdio import StdioUpstream
from toolbus_executor.upstreams.sessions.client_requests import ClientQuestions
from toolbus_executor.upstreams.sessions.connection import (
    Connection,
    Make,
    OnLost,
    refused_hosts_of,
)
from toolbus_executor.upstreams.sessions.connection_choice import Turns
from toolbus_executor.upstreams.sessions.list_comparison import Comparison
from toolbus_executor.upstreams.sessions.owners import Owner, Ownership
from toolbus_executor.upstreams.sessions.pool import BEGIN_SECONDS, Pool, looked_at

log = logging.getLogger(__name__)

Sessions = Pool[Connection]
_NOBODY: Kinds = frozenset()
Page = Callable[[str, str | None], Awaitable[dict[str, Any]]]
Place = tuple[str, str, Owner, Kinds, int]  # address, family, …, the connection's number


@dataclass(frozen=True, slots=True)
class Separation:
    """How the sessions of one server are kept apart; `starts` bounds processes begun at once."""

    pool: Sessions
    ownership: Ownership
    starts: asyncio.Semaphore
    is_process: bool
    questions: ClientQuestions = field(default_factory=ClientQuestions)

    def hear_client(self, said: ClientMessage) -> None:
        """Take what a client session says outside calls to the sessions that belong to it."""
        self.questions.hear(said)
        if said.what == "ended":
            self.pool.end_of_client(said.session)
        elif said.what == "roots":
            for each in self.pool:
                if each.owner.session == said.session and each.kept is not None:
                    each.kept.upstream.notify("notifications/roots/list_changed")

    def over(self, news: News, make: Make, place: str = "", family: str = "") -> "Separated":
        """The server as `make` reaches it; `place` tells its addresses apart, `family` families."""
        return Separated(self, news, make, place, family)


def separation_of(name: str, declared: Server, starts: asyncio.Semaphore) -> Separation | None:
    """Return how sessions are kept apart; None where there are none, or they are everybody's."""
    if not declared.has_sessions or declared.sessions == "shared":
        return None
    ownership = Ownership(declared.sessions)
    return Separation(Pool(name, declared), ownership, starts, declared.is_process)


class Separated:
    """An upstream like any other.

    Where the server turns out to keep nothing (it is stateless, or issues no session ids), one
    connection serves everybody. Else the first connection only lists and is probed, and never
    carries a call. A process that has only listed holds nobody's state, so it is handed to the
    first owner in need of one; the next listing starts another.
    """

    def __init__(self, how: Separation, news: News, make: Make, place: str, family: str) -> None:
        self._how = how
        self._news = news
        self._make = make
        self._place = place
        self._family = family
        self._main: Connection | None = None
        self._asks = False
        self._by_kinds = False  # a session declares what its callers can be asked
        self._one_line = False  # a connection carries everything: what it asks names no call
        self._turns = Turns()
        self.comparison = Comparison(how.pool.server, news.changed)
        self._tools: Collection[CatalogEntry] = ()
        self._listing = 0
        self._turn = asyncio.Lock()
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.left_out: dict[str, str] = {}
        self.held: dict[str, bool] = {}
        self._missed: dict[str, str] = {}

    @property
    def separates(self) -> bool:
        """Whether each owner has a session of its own."""
        if self._main is None or self._how.is_process:
            return True
        main = self._main.upstream
        return isinstance(main, HttpUpstream) and main.keeps_sessions

    @property
    def asks(self) -> bool:
        """Whether the server may ask back in the middle of a call."""
        return self._asks

    @property
    def pid(self) -> int | None:
        """The process that lists, while there is one."""
        return getattr(self._main.upstream, "pid", None) if self._main is not None else None

    @property
    def refused_hosts(self) -> dict[str, int]:
        """Hosts its processes wanted to reach and may not."""
        return refused_hosts_of(self._connections())

    @property
    def refused_files(self) -> dict[str, str]:
        """Files its processes missed, also those of sessions that have ended."""
        for each in self._connections():
            self._note_missed(each)
        return self._missed

    async def open(self) -> Described:
        """Begin the session that lists."""
        self.comparison.begin()
        return await self._begin_main()

    async def list_page(self, method: str, cursor: str | None) -> dict[str, Any]:
        """One page of a list, from the session that is nobody's."""
        self._listing += 1
        try:
            main = await self._lister()
            page = await main.upstream.list_page(method, cursor)
            self.left_out = main.upstream.left_out
        finally:
            self._listing -= 1
        return page

    @asynccontextmanager
    async def listed_as(self, kinds: Kinds) -> AsyncIterator[Page | None]:
        """Yield how to list what clients that declare these kinds are offered; None: nobody knows.

        In the handshake revisions that takes a session, which ends with this.
        """
        main = (await self._lister()).upstream
        if not main.asks and isinstance(main, StdioUpstream | HttpUpstream):
            yield partial(main.list_as, kinds)
            return
        if not self.separates:
            yield None  # without a session nothing is declared that lasts
            return
        quiet = replace(self._news, changed=lambda: None, said=lambda _method, _params: None)
        made = self._made(kinds, quiet, _lost)
        await made.open()  # in the place that its server has among those that start
        try:
            yield made.upstream.list_page
        finally:
            await made.close()

    def learn(self, tools: Collection[CatalogEntry]) -> None:
        """Take note of the tools as listed."""
        self._tools = tools
        for each in self._connections():
            each.upstream.learn(tools)

    async def call(self, call: CallAdmitted, seconds: float, caller: Caller) -> bytes:
        """Ask in the session of the call's owner."""
        if not self.separates and self._main is not None:
            return await self._main.upstream.call(call, seconds, caller)
        owner = self._how.ownership.of(call)
        if not self._one_line or owner.session:
            return await self._call(call, seconds, caller, 0)
        completed = False
        try:
            raw = await self._in_turn(call, seconds, caller, owner)
            completed = True
            return raw
        finally:
            self._turns.learn(call, caller, completed=completed)

    async def hear(self, call: CallAdmitted, seconds: float) -> bytes:
        """Have the server tell the call's owner of a resource or a task."""
        owner, key, begin = self._wanted(call, 0)
        async with self._how.pool.lent(key, owner, begin, seconds) as session:
            return await session.hear(call, seconds)

    async def probe(self) -> None:
        """Ask the session that is nobody's whether the server is there."""
        if self._main is None:
            raise AwayError
        probe = getattr(self._main.upstream, "probe", None)
        if probe is not None:
            await probe()

    async def watch(self, uris: frozenset[str]) -> None:
        """Hear of changes of these resources, where one connection serves everybody."""
        if not self.separates and self._main is not None:
            await self._main.upstream.watch(uris)

    async def follow(self, tasks: frozenset[str]) -> None:
        """Hear of these tasks, where one connection serves everybody."""
        if not self.separates and self._main is not None:
            await self._main.upstream.follow(tasks)

    async def wait_lost(self) -> str:
        """Wait until the server is of no more use as it was met."""
        return await asyncio.shield(self._lost)

    async def close(self) -> None:
        """Leave, with all sessions."""
        if not self._lost.done():
            self._lost.set_result("closed")
        await self.comparison.close()
        await self._how.pool.close(self._is_mine)
        main, self._main = self._main, None
        if main is not None:
            await main.close()

    def spared(self, call: CallAdmitted) -> bool:
        """Whether a failed call says nothing of others: another principal's session is well."""
        if not self.separates:
            return False
        mine = self._how.ownership.of(call).principal_id
        return any(
            each.kept is not None and each.kept.well and each.owner.principal_id != mine
            for each in self._how.pool
        )

    # -- sessions ----------------------------------------------------------------------------

    async def _call(self, call: CallAdmitted, seconds: float, caller: Caller, number: int) -> bytes:
        began = monotonic()
        owner, key, begin = self._wanted(call, number)
        async with self._how.pool.lent(key, owner, begin, seconds) as session:
            left = seconds - (monotonic() - began)
            asking = session.upstream.call(call, left, caller)
            return await session.call(call, asking, is_process=self._how.is_process)

    async def _in_turn(
        self, call: CallAdmitted, seconds: float, caller: Caller, owner: Owner
    ) -> bytes:
        """Ask on a connection without another call that the server may ask in."""
        caller.likely = caller.likely and self._turns.needed(call)
        if not caller.likely or not kinds_of(call.capabilities):
            return await self._call(call, seconds, caller, 0)
        whose = owner, self._kinds(call, owner)
        with self._turns.taken(whose, partial(self._certain, call)) as number:
            try:
                return await self._call(call, seconds, caller, number)
            except OverloadedError:
                if not number or self._turns.asks(call):
                    raise
        return await self._call(call, seconds, caller, 0)  # no room for what is not known to ask

    def _certain(self, call: CallAdmitted, number: int) -> bool:
        """Whether a question on this connection could be attributed."""
        session = self._how.pool.kept(self._wanted(call, number)[1])
        return session is None or getattr(session.upstream, "certain", True)

    def _kinds(self, call: CallAdmitted, owner: Owner) -> Kinds:
        """What the connection of a call declares; nothing where it serves different clients."""
        own = self._by_kinds or (self._one_line and owner.session)
        return kinds_of(call.capabilities) if own else _NOBODY

    def _wanted(self, call: CallAdmitted, number: int) -> tuple[Owner, Place, Callable[[], Any]]:
        owner = self._how.ownership.of(call)
        kinds = self._kinds(call, owner)
        place = self._place, self._family, owner, kinds, number
        return owner, place, lambda: self._begin(owner, kinds)

    async def _begin(self, owner: Owner, kinds: Kinds) -> Connection:
        """A session for an owner: the process that has listed, or a new one."""
        spare = self._main
        own = self._by_kinds or (self._one_line and owner.session)
        declares = kinds if own else EVERYTHING
        fits = not self._one_line or declares == EVERYTHING
        if self._how.is_process and spare is not None and not self._listing and fits:
            self._main, spare.owner, spare.kinds = None, owner, kinds
            return spare
        made = self._made(declares, self._news, self._on_lost)
        made.owner, made.kinds = owner, kinds
        try:
            async with self._how.starts if self._how.is_process else nullcontext():
                async with asyncio.timeout(BEGIN_SECONDS):
                    await made.open()
        finally:
            self._note_missed(made)
        made.upstream.learn(self._tools)
        return made

    def _made(self, kinds: Kinds, news: News, on_lost: OnLost) -> Connection:
        """A connection that declares these kinds, not opened yet."""
        main = self._main.upstream if self._main is not None else None
        make = self._make
        if isinstance(main, HttpUpstream):
            make = partial(main.another, kinds=kinds)
        made = Connection(news, make, on_lost, self._how.questions)
        if isinstance(made.upstream, StdioUpstream):
            made.upstream.declare(kinds)
        return made

    async def _lister(self) -> Connection:
        async with self._turn:
            if self._main is None:
                await self._begin_main()
            assert self._main is not None  # noqa: S101 - begun just now
            return self._main

    async def _begin_main(self) -> Described:
        made = self._made(EVERYTHING, self._news, self._on_lost)
        try:
            described = await made.open()
        finally:
            self._note_missed(made)
        made.upstream.learn(self._tools)
        self._main, self._asks = made, made.upstream.asks
        self.held = getattr(made.upstream, "held", {})
        self._by_kinds = isinstance(made.upstream, HttpUpstream) and made.upstream.by_kinds
        self._one_line = self._asks and not self._by_kinds
        return described

    def _on_lost(self, connection: Connection, reason: str) -> None:
        """A session ended by itself. Those of others go on; without any, the server is lost."""
        self._note_missed(connection)
        if connection is self._main and (not self._any_left or not self._survives):
            self._lose(reason)
        elif connection is self._main:
            self._main = None
            asyncio.ensure_future(self._replace(connection, reason)).add_done_callback(looked_at)
        else:
            log.warning("session.lost", extra={"server": self._how.pool.server, "reason": reason})
            self._how.pool.drop(connection, self._again(connection))

    async def _replace(self, lost: Connection, reason: str) -> None:
        """Begin another session that lists, to know whether the server is there at all."""
        await lost.close()
        if self._how.is_process:
            return  # the next listing starts one
        try:
            async with asyncio.timeout(BEGIN_SECONDS):
                await self._lister()
        except (ToolbusError, TimeoutError):
            self._lose(reason)

    def _again(self, before: Connection) -> Callable[[], Awaitable[Connection]] | None:
        """How a session is begun again at once, in which its owner hears of something."""
        owner, kinds = before.owner, before.kinds
        heard = before.watched.names, before.followed.names
        if owner is None or not any(heard):
            return None

        async def again() -> Connection:
            return await (await self._begin(owner, kinds)).inherit(*heard)

        return again

    @property
    def _survives(self) -> bool:
        """Whether sessions have connections of their own, which outlive the one that lists."""
        main = self._main.upstream if self._main is not None else None
        return not (isinstance(main, HttpUpstream) and not main.is_old)

    def _lose(self, reason: str) -> None:
        if not self._lost.done():
            self._lost.set_result(reason)

    def _note_missed(self, connection: Connection) -> None:
        self._missed |= getattr(connection.upstream, "refused_files", {})

    @property
    def _any_left(self) -> bool:
        """Whether anybody has a session at this address, in this family or the other."""
        here = (each for each in self._how.pool if each.key[0] == self._place)
        return any(each.kept is not None for each in here)

    def _own(self) -> list[Connection]:
        mine = (each.kept for each in self._how.pool if self._is_mine(each.key))
        return [each for each in mine if each is not None]

    def _connections(self) -> list[Connection]:
        return [*self._own(), *((self._main,) if self._main is not None else ())]

    def _is_mine(self, key: Any) -> bool:
        return bool(key[:2] == (self._place, self._family))


def _lost(_connection: Connection, _reason: str) -> None:
    """Nobody relies on a session that only compares lists."""
