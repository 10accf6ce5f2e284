"""A server that wants OAuth: one connection for everybody, or one for each user."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any, Protocol, cast

from toolbus_common.concurrency import end
from toolbus_common.config import MACHINES, Server
from toolbus_common.contracts import CallAdmitted, CatalogEntry, Handshake
from toolbus_common.errors import ToolbusError, UpstreamDeadError, UpstreamRefusedError
from toolbus_executor.credentials import consent
from toolbus_executor.credentials.oauth_token import Ask, Bearer, UnconsentedError
from toolbus_executor.mcp_messages.request_builder import MODERN
from toolbus_executor.upstreams.api_upstream import no_such_method
from toolbus_executor.upstreams.base import Described, News, Upstream, asks, leave, separates
from toolbus_executor.upstreams.call_channel import METHOD_NOT_FOUND, Caller
from toolbus_executor.upstreams.sessions.separate_sessions import Separated

MOST_USERS = 512  # connected at once
WAIT_SECONDS = 20.0  # for a person who has just accepted to open the page
LOOK_SECONDS = 3.0
CONNECT = "connect_account"
_TOOL = {
    "name": CONNECT,
    "description": "Connect your account at this server: its tools are there once somebody has.",
    "inputSchema": {"type": "object", "properties": {}},
}


class Connected(Upstream, Protocol):
    """A connection at which it can be asked whether the server is there."""

    async def probe(self) -> None:
        """Ask it."""
        ...


Make = Callable[[Bearer, News], Connected]  # a connection that shows this token


@dataclass(slots=True)
class _Own:
    """A user's connection, and how many calls it has under way."""

    bearer: Bearer
    upstream: Connected | None = None
    under_way: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Authorized:
    """An upstream whose every request carries a token.

    Where each person has their own, the main connection is somebody's, and what it sees is shown to
    everybody: so it lists tools, which are the same for all, and nothing that may be private.
    """

    def __init__(self, name: str, declared: Server, ask: Ask, make: Make, news: News) -> None:
        self._name = name
        self._own_tokens = declared.oauth is not None and declared.oauth.tokens == "user"
        self._one_lists = declared.oauth is not None and bool(declared.oauth.listing)
        self._ask = ask
        self._make = make
        self._news = news
        self._bearer = Bearer(name, "", ask, listing=True)
        self._main = make(self._bearer, _but_deaf(news) if self._own_tokens else news)
        self._users: OrderedDict[str, _Own] = OrderedDict()
        self._tools: Collection[CatalogEntry] = ()
        self._looking: asyncio.Task[None] | None = None  # while nobody has connected
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @property
    def left_out(self) -> dict[str, str]:
        """Of its latest lists, and why."""
        return self._main.left_out

    @left_out.setter
    def left_out(self, told: dict[str, str]) -> None:
        self._main.left_out = told

    @property
    def pid(self) -> int | None:
        """The process that lists, where it is one."""
        return getattr(self._main, "pid", None)

    @property
    def held(self) -> dict[str, bool]:
        """What its processes are held to on this machine, and what not."""
        return getattr(self._main, "held", {})

    @property
    def refused_hosts(self) -> dict[str, int]:
        """Hosts its processes wanted to reach and may not."""
        return getattr(self._main, "refused_hosts", {})

    @property
    def refused_files(self) -> dict[str, str]:
        """Files its processes missed."""
        return getattr(self._main, "refused_files", {})

    @property
    def asks(self) -> bool:
        """Whether the server may ask back in the middle of a call."""
        return self._looking is None and self._main.asks

    def asks_in(self, call: CallAdmitted) -> bool:
        """Whether the server may ask back in the middle of this call."""
        return self._looking is None and asks(self._main, call)

    def separates_in(self, call: CallAdmitted) -> bool:
        """Whether this call belongs to a session of its owner's."""
        return self._looking is None and separates(self._main, call)

    @property
    def handshake(self) -> Handshake | None:
        """What it says of itself in the handshake, where it speaks both families."""
        return getattr(self._main, "handshake", None)

    async def hear(self, call: CallAdmitted, seconds: float) -> bytes:
        """Have the server tell a call's owner of a resource or a task."""
        if self._own_tokens:
            raise _unfollowed("subscribed to or followed: ask again")
        return await cast("Separated", self._main).hear(call, seconds)

    async def open(self) -> Described:
        """Meet the server; one that nobody has connected to offers that alone."""
        try:
            described = await self._main.open()
            return _for_everybody(described) if self._own_tokens else described
        except UnconsentedError as error:
            if not self._own_tokens:
                raise UpstreamDeadError(error.reason, sent=False) from error
            self._looking = asyncio.create_task(self._look())
            return Described("modern", MODERN, capabilities={"tools": {}}, ours=True)

    async def list_page(self, method: str, cursor: str | None) -> dict[str, Any]:
        """One page of a list; of what may be private to a person there is none."""
        if self._own_tokens and method != "tools/list":
            raise no_such_method()
        if self._looking is None:
            return await self._main.list_page(method, cursor)
        return {"tools": [_TOOL]}

    def learn(self, tools: Collection[CatalogEntry]) -> None:
        """Take note of the tools as listed."""
        self._tools = tools
        self._main.learn(tools)
        for own in self._users.values():
            if own.upstream is not None:
                own.upstream.learn(tools)

    async def call(self, call: CallAdmitted, seconds: float, caller: Caller) -> bytes:
        """Ask with the token of the call's user, or tell its caller how to get one."""
        told = consent.answered(call)
        if told.action and told.action != "accept":
            return consent.declined(self._name)
        began = monotonic()
        try:
            async with self._reached(told, seconds) as upstream:
                if upstream is None:
                    return consent.result(await self._welcome())
                return await upstream.call(told.call, seconds - (monotonic() - began), caller)
        except UnconsentedError as error:
            return consent.told(call, error, self._name)

    async def probe(self) -> None:
        """Ask whether the server is there."""
        if self._looking is None:
            await self._main.probe()

    async def watch(self, uris: frozenset[str]) -> None:
        """Hear of changes of these resources; of one person's nobody hears."""
        if self._own_tokens and uris:
            raise _unfollowed("subscribed to: read it again")
        if self._looking is None:
            await self._main.watch(uris)

    async def follow(self, tasks: frozenset[str]) -> None:
        """Hear of these tasks; of one person's nobody hears."""
        if self._own_tokens and tasks:
            raise _unfollowed("followed: ask for the task again")
        if self._looking is None:
            await self._main.follow(tasks)

    async def wait_lost(self) -> str:
        """Wait until the server is of no more use as it was met."""
        main = asyncio.ensure_future(self._main.wait_lost())
        try:
            await asyncio.wait((main, self._lost), return_when=asyncio.FIRST_COMPLETED)
            return self._lost.result() if self._lost.done() else main.result()
        finally:
            main.cancel()

    async def close(self) -> None:
        """Leave, with everybody's connection."""
        if self._looking is not None:
            await end(self._looking)
        every = [each.upstream for each in self._users.values() if each.upstream is not None]
        self._users.clear()
        await asyncio.gather(*(leave(each) for each in (self._main, *every)))

    # -- whose connection ----------------------------------------------------------------------

    @asynccontextmanager
    async def _reached(
        self, told: consent.ConsentReply, seconds: float
    ) -> AsyncIterator[Connected | None]:
        """The connection for a call; None while there is nothing but to connect.

        Raises:
            UnconsentedError: there is no token.

        """
        patience = min(WAIT_SECONDS, seconds / 2) if told.action else 0.0
        if not self._own_tokens:
            if not self._bearer.now():
                await self._bearer.needed(patience)
            yield self._main
            return
        own = self._own(self._user(told.call))
        own.under_way += 1
        try:
            if not own.bearer.now():
                await self._consented(own, patience)
            yield None if self._looking is not None else await self._opened(own, seconds)
        finally:
            own.under_way -= 1

    async def _consented(self, own: _Own, patience: float) -> None:
        """See that there is a token; without one the user's connection ends."""
        try:
            await own.bearer.needed(patience)
        except UnconsentedError:
            self._forget(own)
            raise

    def _forget(self, own: _Own) -> None:
        """Leave a user's connection: the next one begins with nothing of it."""
        left, own.upstream = own.upstream, None
        if left is not None:
            self._closing(left)

    def _user(self, call: CallAdmitted) -> str:
        user = call.user
        if not user or user.startswith(f"{MACHINES}/"):
            raise UnconsentedError(
                f"{self._name} is called with each person's own token, and this key is nobody's: "
                "sign in with the client, or have an operator declare the key's user."
            )
        return user

    def _own(self, user: str) -> _Own:
        found = self._users.get(user)
        if found is None:
            self._make_room()
            found = _Own(Bearer(self._name, user, self._ask))
            self._users[user] = found
        self._users.move_to_end(user)
        return found

    def _make_room(self) -> None:
        if len(self._users) < MOST_USERS:
            return
        idle = next((user for user, own in self._users.items() if not own.under_way), None)
        if idle is None:
            return
        left = self._users.pop(idle).upstream
        if left is not None:
            self._closing(left)

    def _closing(self, upstream: Connected) -> None:
        task = asyncio.ensure_future(upstream.close())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _opened(self, own: _Own, seconds: float) -> Connected:
        """A user's connection, made on the first call."""
        if own.upstream is not None:
            return own.upstream
        async with own.turn, asyncio.timeout(seconds):
            if own.upstream is None:
                made = self._make(own.bearer, _but_deaf(self._news, _nothing))
                try:
                    await made.open()
                except BaseException as error:
                    await leave(made)
                    if isinstance(error, ToolbusError):
                        error.data["sent"] = False  # nothing of the call itself
                    raise
                made.learn(self._tools)
                own.upstream = made
        return own.upstream

    # -- while nobody has connected --------------------------------------------------------------

    async def _look(self) -> None:
        """Look from time to time whether somebody has."""
        while not await self._bearer.line():  # noqa: ASYNC110 - what is waited for is elsewhere
            await asyncio.sleep(LOOK_SECONDS)
        self._found()

    async def _welcome(self) -> str:
        """What somebody is told who has connected before there were tools."""
        if self._one_lists and not await self._bearer.line():
            return (
                "You are connected. The tools are listed once the account has connected that an "
                "operator named for it; ask your operator if that takes long."
            )
        self._found()
        return "You are connected. List the tools again."

    def _found(self) -> None:
        if not self._lost.done():
            self._lost.set_result("Somebody has connected, so it is asked what it offers.")


def _for_everybody(described: Described) -> Described:
    """What a server says of itself, without what only one person may list or hear of."""
    told = {name: what for name, what in described.capabilities.items() if name != "prompts"}
    if described.has("resources"):
        told["resources"] = {}  # each person may read their own
    return replace(described, capabilities=told)


def _unfollowed(otherwise: str) -> UpstreamRefusedError:
    """What is told of news that would come over somebody else's connection."""
    return UpstreamRefusedError(
        f"Here each person has a connection of their own, so nothing can be {otherwise} instead.",
        upstream_code=METHOD_NOT_FOUND,
        sent=False,
    )


def _but_deaf(news: News, changed: Callable[[], None] | None = None) -> News:
    """What a server says in one person's connection is not for others to hear."""
    return replace(news, changed=changed or news.changed, said=_unheard, told=None)


def _nothing() -> None:
    """Only the connection that lists tells of changed lists."""


def _unheard(_method: str, _params: bytes) -> None:
    """Nobody is told."""
