"""Upstream for a server with separate sessions: one for listing, and one for each owner."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic
from typing import Any

from toolbus_common.concurrency import Tasks
from toolbus_common.config import Server
from toolbus_common.contracts import CallAdmitted, CatalogEntry, ClientMessage
from toolbus_common.errors import OverloadedError, ToolbusError, UpstreamDeadError
from toolbus_executor.mcp_messages.client_capabilities import EVERYTHING, Kinds, kinds_of
from toolbus_executor.resilience.health_probe import NotConnectedError
from toolbus_executor.upstreams.base import Described, Send, UpstreamCallbacks, plain_sender
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.mcp.http import HttpUpstream
from toolbus_executor.upstreams.mcp.stdio import StdioUpstream
from toolbus_executor.upstreams.sessions.client_requests import ClientQuestions
from toolbus_executor.upstreams.sessions.connection import Connection, Make, OnLost, denied_hosts_of
from toolbus_executor.upstreams.sessions.connection_choice import ExclusiveConnections
from toolbus_executor.upstreams.sessions.list_comparison import Comparison
from toolbus_executor.upstreams.sessions.owners import Owner, Ownership
from toolbus_executor.upstreams.sessions.pool import BEGIN_SECONDS, Pool, looked_at

log = logging.getLogger(__name__)

Sessions = Pool[Connection]
_NO_KINDS: Kinds = frozenset()
Page = Callable[[str, str | None], Awaitable[dict[str, Any]]]
Key = tuple[str, str, Owner, Kinds, int]  # address, family, …, the connection's number


@dataclass(frozen=True, slots=True)
class Separation:
    """The session settings of one server. `starts` limits concurrent starts of processes."""

    pool: Sessions
    ownership: Ownership
    starts: asyncio.Semaphore
    is_process: bool
    questions: ClientQuestions = field(default_factory=ClientQuestions)

    def hear_client(self, message: ClientMessage) -> None:
        """Process a message of a client session that belongs to no call."""
        self.questions.handle(message)
        if message.what == "ended":
            self.pool.end_of_client(message.session)
        elif message.what == "roots":
            for each in self.pool:
                if each.owner.session == message.session and each.kept is not None:
                    each.kept.upstream.notify("notifications/roots/list_changed")

    def over(
        self, news: UpstreamCallbacks, make: Make, place: str = "", family: str = ""
    ) -> "Separated":
        """Return an upstream with separate sessions. `make` creates its connections."""
        return Separated(self, news, make, place, family)


def separation_of(name: str, declared: Server, starts: asyncio.Semaphore) -> Separation | None:
    """Return the session settings of a server; None if it has no sessions or shared sessions."""
    if not declared.has_sessions or declared.sessions == "shared":
        return None
    ownership = Ownership(declared.sessions)
    return Separation(Pool(name, declared), ownership, starts, declared.is_process)


class Separated:
    """An upstream with separate sessions.

    If the connected server stores no state (it is stateless, or issues no session ids), one
    connection serves all owners. Otherwise the first connection is used only for listing and
    probes. A process that was used only for listing has no owner's state, so the first owner that
    needs a process receives it.
    """

    def __init__(
        self, how: Separation, news: UpstreamCallbacks, make: Make, place: str, family: str
    ) -> None:
        self._how = how
        self._news = news
        self._make = make
        self._place = place
        self._family = family
        self._main: Connection | None = None
        self._sends_requests = False
        self._by_kinds = False  # each session declares its callers' kinds
        self._is_multiplexed = False  # requests of the server contain no call id
        self._turns = ExclusiveConnections()
        self.comparison = Comparison(how.pool.server, news.on_lists_changed)
        self._tools: Collection[CatalogEntry] = ()
        self._listing = 0
        self._turn = asyncio.Lock()
        self._replacing = Tasks()
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.left_out: dict[str, str] = {}
        self.held: dict[str, bool] = {}
        self._missed: dict[str, str] = {}

    @property
    def separates(self) -> bool:
        """Whether each owner has a separate session."""
        if self._main is None or self._how.is_process:
            return True
        main = self._main.upstream
        return isinstance(main, HttpUpstream) and main.keeps_sessions

    @property
    def sends_requests(self) -> bool:
        """Whether the server may send requests to a client during a call."""
        return self._sends_requests

    @property
    def pid(self) -> int | None:
        """The process id of the process for listing while it runs, otherwise None."""
        return getattr(self._main.upstream, "pid", None) if self._main is not None else None

    @property
    def denied_hosts(self) -> dict[str, int]:
        """The hosts that the proxy rejected, each with the number of requests."""
        return denied_hosts_of(self._connections())

    @property
    def denied_files(self) -> dict[str, str]:
        """The hidden files that the processes need, including those of ended sessions."""
        for each in self._connections():
            self._note_missed(each)
        return self._missed

    async def open(self) -> Described:
        """Open the connection for lists and probes."""
        self.comparison.begin()
        return await self._begin_main()

    async def list_page(self, method: str, cursor: str | None) -> dict[str, Any]:
        """Return one page of a list, from the session without an owner."""
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
        """Yield a list function for clients that declare these kinds; None if unknown."""
        main = (await self._lister()).upstream
        if not main.sends_requests and isinstance(main, StdioUpstream | HttpUpstream):
            yield partial(main.list_as, kinds)
            return
        if not self.separates:
            yield None  # without a session, declared capabilities do not last
            return
        quiet = replace(
            self._news, on_lists_changed=lambda: None, on_notification=lambda _method, _params: None
        )
        made = self._made(kinds, quiet, lambda _connection, _reason: None)
        await made.open()  # within its server's share of starting processes
        try:
            yield made.upstream.list_page
        finally:
            await made.close()

    def learn(self, tools: Collection[CatalogEntry]) -> None:
        """Store the definitions of the listed tools."""
        self._tools = tools
        for each in self._connections():
            each.upstream.learn(tools)

    async def call(self, call: CallAdmitted, seconds: float, caller: Caller) -> bytes:
        """Send a call in the session of its owner, and return its result."""
        if not self.separates and self._main is not None:
            return await self._main.upstream.call(call, seconds, caller)
        owner = self._how.ownership.of(call)
        if not self._is_multiplexed or owner.session:
            return await self._call(call, seconds, caller, 0)
        completed = False
        try:
            raw = await self._in_turn(call, seconds, caller, owner)
            completed = True
            return raw
        finally:
            self._turns.learn(call, caller, completed=completed)

    def plain_sender(self, tool: str) -> Send | None:
        """Return the function for plain calls of a tool, if one connection serves all owners."""
        return None if self.separates else plain_sender(self._main and self._main.upstream, tool)

    async def subscribe(self, call: CallAdmitted, seconds: float) -> bytes:
        """Subscribe the owner of a call to a resource or a task, and return the result."""
        owner, key, begin = self._wanted(call, 0)
        async with self._how.pool.lent(key, owner, begin, seconds) as session:
            return await session.subscribe(call, seconds)

    async def probe(self) -> None:
        """Probe the server in the session without an owner."""
        if self._main is None:
            raise NotConnectedError
        probe = getattr(self._main.upstream, "probe", None)
        if probe is not None:
            await probe()

    async def watch(self, uris: frozenset[str]) -> None:
        """Subscribe to changes of these resources, if one connection serves all owners."""
        if not self.separates and self._main is not None:
            await self._main.upstream.watch(uris)

    async def follow(self, tasks: frozenset[str]) -> None:
        """Subscribe to status changes of these tasks, if one connection serves all owners."""
        if not self.separates and self._main is not None:
            await self._main.upstream.follow(tasks)

    async def wait_lost(self) -> str:
        """Wait until the server must be reconnected, and return the reason."""
        return await asyncio.shield(self._lost)

    async def close(self) -> None:
        """Close all sessions."""
        if not self._lost.done():
            self._lost.set_result("closed")
        await self.comparison.close()
        await self._replacing.end()
        await self._how.pool.close(self._is_mine)
        if self._main is not None:
            await self._main.close()

    def spared(self, call: CallAdmitted) -> bool:
        """Return whether another principal's session is healthy, so the server has not failed."""
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
            response = session.upstream.call(call, left, caller)
            return await session.call(call, response, is_process=self._how.is_process)

    async def _in_turn(
        self, call: CallAdmitted, seconds: float, caller: Caller, owner: Owner
    ) -> bytes:
        """Send a call. Calls during which requests can arrive get separate connections."""
        caller.likely = caller.likely and self._turns.needed(call)
        if not caller.likely or not kinds_of(call.capabilities):
            return await self._call(call, seconds, caller, 0)
        whose = owner, self._kinds(call, owner)
        with self._turns.taken(whose, partial(self._certain, call)) as number:
            try:
                return await self._call(call, seconds, caller, number)
            except OverloadedError:
                if not number or self._turns.sends_requests(call):
                    raise
        # All connections are busy, but the tool has not sent requests so far.
        return await self._call(call, seconds, caller, 0)

    def _certain(self, call: CallAdmitted, number: int) -> bool:
        """Return whether a server request on this connection is certain to belong to the call."""
        session = self._how.pool.kept(self._wanted(call, number)[1])
        return session is None or getattr(session.upstream, "certain", True)

    def _kinds(self, call: CallAdmitted, owner: Owner) -> Kinds:
        """Return the kinds that the connection for a call declares; empty if clients share it."""
        own = self._by_kinds or (self._is_multiplexed and owner.session)
        return kinds_of(call.capabilities) if own else _NO_KINDS

    def _wanted(self, call: CallAdmitted, number: int) -> tuple[Owner, Key, Callable[[], Any]]:
        owner = self._how.ownership.of(call)
        kinds = self._kinds(call, owner)
        key = self._place, self._family, owner, kinds, number
        return owner, key, lambda: self._begin(owner, kinds)

    async def _begin(self, owner: Owner, kinds: Kinds) -> Connection:
        """Return a session for an owner: the process used for listing, or a new session."""
        spare = self._main
        own = self._by_kinds or (self._is_multiplexed and owner.session)
        declares = kinds if own else EVERYTHING
        fits = not self._is_multiplexed or declares == EVERYTHING
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

    def _made(self, kinds: Kinds, news: UpstreamCallbacks, on_lost: OnLost) -> Connection:
        """Create a connection that declares these kinds, without opening it."""
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
            assert self._main is not None  # noqa: S101 - set by _begin_main
            return self._main

    async def _begin_main(self) -> Described:
        made = self._made(EVERYTHING, self._news, self._on_lost)
        try:
            described = await made.open()
        finally:
            self._note_missed(made)
        if self._lost.done():
            await made.close()
            raise UpstreamDeadError("The server was disconnected; retry.", sent=False)
        made.upstream.learn(self._tools)
        self._main, self._sends_requests = made, made.upstream.sends_requests
        self.held = getattr(made.upstream, "held", {})
        self._by_kinds = isinstance(made.upstream, HttpUpstream) and made.upstream.by_kinds
        self._is_multiplexed = self._sends_requests and not self._by_kinds
        return described

    def _on_lost(self, connection: Connection, reason: str) -> None:
        """Handle a lost session. The server is lost when the last session is lost."""
        self._note_missed(connection)
        if connection is self._main and (not self._any_left or not self._survives):
            self._lose(reason)
        elif connection is self._main:
            self._main = None
            replacing = self._replacing.start(self._replace(connection, reason))
            replacing.add_done_callback(looked_at)
        else:
            log.warning("session.lost", extra={"server": self._how.pool.server, "reason": reason})
            self._how.pool.drop(connection, self._again(connection))

    async def _replace(self, lost: Connection, reason: str) -> None:
        """Open a new session for listing. If that fails, the server is lost."""
        await lost.close()
        if self._how.is_process:
            return  # the next listing starts a process
        try:
            async with asyncio.timeout(BEGIN_SECONDS):
                await self._lister()
        except (ToolbusError, TimeoutError):
            self._lose(reason)

    def _again(self, before: Connection) -> Callable[[], Awaitable[Connection]] | None:
        """Return a function that reopens a session with its subscriptions; None if it has none."""
        owner, kinds = before.owner, before.kinds
        subscriptions = before.watched.names, before.followed.names
        if owner is None or not any(subscriptions):
            return None

        async def again() -> Connection:
            return await (await self._begin(owner, kinds)).inherit(*subscriptions)

        return again

    @property
    def _survives(self) -> bool:
        """Whether the sessions do not depend on the connection for listing."""
        main = self._main.upstream if self._main is not None else None
        return not (isinstance(main, HttpUpstream) and not main.is_old)

    def _lose(self, reason: str) -> None:
        if not self._lost.done():
            self._lost.set_result(reason)

    def _note_missed(self, connection: Connection) -> None:
        self._missed |= getattr(connection.upstream, "denied_files", {})

    @property
    def _any_left(self) -> bool:
        """Whether a session exists at this address, in either family."""
        here = (each for each in self._how.pool if each.key[0] == self._place)
        return any(each.kept is not None for each in here)

    def _connections(self) -> list[Connection]:
        own = (each.kept for each in self._how.pool if self._is_mine(each.key))
        return [each for each in (*own, self._main) if each is not None]

    def _is_mine(self, key: Any) -> bool:
        return bool(key[:2] == (self._place, self._family))
