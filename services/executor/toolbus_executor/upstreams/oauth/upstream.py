"""Upstream that requires OAuth: one shared connection, or one connection per user."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any, Protocol, cast

from toolbus_common.concurrency import Tasks, end
from toolbus_common.config import MACHINES, Server
from toolbus_common.config.servers.oauth import ISSUED
from toolbus_common.contracts import CallAdmitted, CatalogEntry, Handshake
from toolbus_common.errors import ToolbusError, UpstreamDeadError, UpstreamRefusedError
from toolbus_executor.credentials import consent
from toolbus_executor.credentials.oauth_token import Bearer, ConsentRequiredError, RequestToken
from toolbus_executor.identity.claims import encoded_caller
from toolbus_executor.mcp_messages.request_builder import MODERN
from toolbus_executor.upstreams.api_upstream import no_such_method
from toolbus_executor.upstreams.base import (
    Described,
    Upstream,
    UpstreamCallbacks,
    close_completely,
    sends_requests,
    separates,
)
from toolbus_executor.upstreams.call_channel import METHOD_NOT_FOUND, Caller
from toolbus_executor.upstreams.sessions.separate_sessions import Separated

MAX_USERS = 512  # users with a connection
WAIT_SECONDS = 20.0  # time for a user who opens the consent page to consent
CHECK_SECONDS = 3.0
CONNECT = "connect_account"
_TOOL = {
    "name": CONNECT,
    "description": "Connect your account at this server to use its tools.",
    "inputSchema": {"type": "object", "properties": {}},
}


class Connected(Upstream, Protocol):
    """An upstream that can be probed."""

    async def probe(self) -> None:
        """Check that the server responds."""
        ...


Make = Callable[[Bearer, UpstreamCallbacks], Connected]  # creates a connection with a token


@dataclass(slots=True)
class _Own:
    """A user's connection, and the number of its calls in progress."""

    bearer: Bearer
    upstream: Connected | None = None
    calls: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Authorized:
    """An upstream whose requests all contain a token.

    If each user has a token, the main connection belongs to one user, and its lists are shown to
    all users. Therefore it lists only tools, which are the same for all users.
    """

    def __init__(
        self,
        name: str,
        declared: Server,
        request: RequestToken,
        make: Make,
        news: UpstreamCallbacks,
    ) -> None:
        self._name = name
        self._own_tokens = declared.oauth is not None and declared.oauth.tokens == "user"
        self._issued = declared.oauth is not None and declared.oauth.grant == ISSUED
        self._one_lists = declared.oauth is not None and bool(declared.oauth.listing)
        self._ask = request
        self._make = make
        self._news = news
        self._bearer = Bearer(name, "", request, listing=True)
        self._main = make(self._bearer, _only_changes(news) if self._own_tokens else news)
        self._users: OrderedDict[str, _Own] = OrderedDict()
        self._closing = Tasks()
        self._tools: Collection[CatalogEntry] = ()
        self._waiting_for_user: asyncio.Task[None] | None = None  # set while no user has connected
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @property
    def left_out(self) -> dict[str, str]:
        """Entries that the latest lists omit, with the reasons."""
        return self._main.left_out

    @left_out.setter
    def left_out(self, reasons: dict[str, str]) -> None:
        self._main.left_out = reasons

    @property
    def pid(self) -> int | None:
        """The process id of the process for listing; None if the server is no process."""
        return getattr(self._main, "pid", None)

    @property
    def held(self) -> dict[str, bool]:
        """The isolation in force."""
        return getattr(self._main, "held", {})

    @property
    def denied_hosts(self) -> dict[str, int]:
        """The hosts that the proxy rejected, each with the number of requests."""
        return getattr(self._main, "denied_hosts", {})

    @property
    def denied_files(self) -> dict[str, str]:
        """The hidden files that the process needs, each with `read` or `write`."""
        return getattr(self._main, "denied_files", {})

    @property
    def sends_requests(self) -> bool:
        """Whether the server may send requests to a client during a call."""
        return self._waiting_for_user is None and self._main.sends_requests

    def sends_requests_in(self, call: CallAdmitted) -> bool:
        """Return whether the server may send requests to the client during this call."""
        return self._waiting_for_user is None and sends_requests(self._main, call)

    def separates_in(self, call: CallAdmitted) -> bool:
        """Return whether this call needs a session of its owner."""
        return self._waiting_for_user is None and separates(self._main, call)

    @property
    def handshake(self) -> Handshake | None:
        """The description from the handshake, if the server supports both families."""
        return getattr(self._main, "handshake", None)

    async def subscribe(self, call: CallAdmitted, seconds: float) -> bytes:
        """Subscribe the owner of a call to a resource or a task, and return the result."""
        if self._own_tokens:
            raise _unfollowed("poll it")
        return await cast("Separated", self._main).subscribe(call, seconds)

    async def open(self) -> Described:
        """Connect. If no user has connected an account, offer only a tool for connecting."""
        try:
            described = await self._main.open()
            return _without_private(described) if self._own_tokens else described
        except ConsentRequiredError as error:
            if not self._own_tokens:
                raise UpstreamDeadError(error.reason, sent=False) from error
            self._waiting_for_user = asyncio.create_task(self._wait_for_user())
            return Described("modern", MODERN, capabilities={"tools": {}}, ours=True)

    async def list_page(self, method: str, cursor: str | None) -> dict[str, Any]:
        """Return one page of a list. With a token per user, only tools are listed."""
        if self._own_tokens and method != "tools/list":
            raise no_such_method()
        if self._waiting_for_user is None:
            return await self._main.list_page(method, cursor)
        return {"tools": [_TOOL]}

    def learn(self, tools: Collection[CatalogEntry]) -> None:
        """Store the definitions of the listed tools."""
        self._tools = tools
        self._main.learn(tools)
        for own in self._users.values():
            if own.upstream is not None:
                own.upstream.learn(tools)

    async def call(self, call: CallAdmitted, seconds: float, caller: Caller) -> bytes:
        """Send a call with the token of its user and return its result.

        Without a token, the result describes how to connect an account.
        """
        answer = consent.take_answer(call)
        if answer.action and answer.action != "accept":
            return consent.declined(self._name)
        began = monotonic()
        try:
            async with self._reached(answer, seconds) as upstream:
                if upstream is None:
                    return consent.result(await self._welcome())
                return await upstream.call(answer.call, seconds - (monotonic() - began), caller)
        except ConsentRequiredError as error:
            return consent.consent_required(call, error, self._name)

    async def probe(self) -> None:
        """Check that the server responds."""
        if self._waiting_for_user is None:
            await self._main.probe()

    async def watch(self, uris: frozenset[str]) -> None:
        """Subscribe to changes of these resources. Not supported with a token per user."""
        if self._own_tokens and uris:
            raise _unfollowed("read the resource again")
        if self._waiting_for_user is None:
            await self._main.watch(uris)

    async def follow(self, tasks: frozenset[str]) -> None:
        """Subscribe to status changes of these tasks. Not supported with a token per user."""
        if self._own_tokens and tasks:
            raise _unfollowed("poll the task")
        if self._waiting_for_user is None:
            await self._main.follow(tasks)

    async def wait_lost(self) -> str:
        """Wait until the server must be reconnected, and return the reason."""
        main = asyncio.ensure_future(self._main.wait_lost())
        try:
            await asyncio.wait((main, self._lost), return_when=asyncio.FIRST_COMPLETED)
            return self._lost.result() if self._lost.done() else main.result()
        finally:
            main.cancel()

    async def close(self) -> None:
        """Close every connection."""
        if self._waiting_for_user is not None:
            await end(self._waiting_for_user)
        every = [each.upstream for each in self._users.values() if each.upstream is not None]
        self._users.clear()
        await asyncio.gather(*(close_completely(each) for each in (self._main, *every)))
        await self._closing.finish()

    # -- users' connections --------------------------------------------------------------------

    @asynccontextmanager
    async def _reached(
        self, answer: consent.ConsentReply, seconds: float
    ) -> AsyncIterator[Connected | None]:
        """Yield the connection for a call; None while only the tool for connecting is offered.

        Raises:
            ConsentRequiredError: there is no token.

        """
        patience = min(WAIT_SECONDS, seconds / 2) if answer.action else 0.0
        if not self._own_tokens:
            if not self._bearer.now():
                await self._bearer.needed(patience)
            yield self._main
            return
        own = self._own_of(answer.call)
        own.calls += 1
        try:
            if not own.bearer.now():
                await self._consented(own, patience)
            yield None if self._waiting_for_user is not None else await self._opened(own, seconds)
        finally:
            own.calls -= 1

    async def _consented(self, own: _Own, patience: float) -> None:
        """Wait for a token. On `ConsentRequiredError`, close the user's connection and re-raise."""
        try:
            await own.bearer.needed(patience)
        except ConsentRequiredError:
            self._forget(own)
            raise

    def _forget(self, own: _Own) -> None:
        """Close a user's connection. The user's next connection shares no state with it."""
        left, own.upstream = own.upstream, None
        if left is not None:
            self._closing.start(left.close()).add_done_callback(_retrieve_error)

    def _user(self, call: CallAdmitted) -> str:
        user = call.user
        if not user or user.startswith(f"{MACHINES}/"):
            raise ConsentRequiredError(
                f"{self._name} requires a token of each user, but this key has no user: sign in "
                "with the client, or ask an operator to set the key's user."
            )
        return user

    def _own_of(self, call: CallAdmitted) -> _Own:
        """Return the connection of a call's user, or of its caller if Toolbus issues the tokens."""
        if not self._issued:
            user = self._user(call)
            return self._own(user, user, "")
        claims = encoded_caller(call)
        return self._own(claims, call.user, claims)

    def _own(self, caller: str, user: str, claims: str) -> _Own:
        found = self._users.get(caller)
        if found is None:
            self._drop_idle_user()
            found = _Own(Bearer(self._name, user, self._ask, claims=claims))
            self._users[caller] = found
        self._users.move_to_end(caller)
        return found

    def _drop_idle_user(self) -> None:
        if len(self._users) < MAX_USERS:
            return
        idle = next((user for user, own in self._users.items() if not own.calls), None)
        if idle is None:
            return
        left = self._users.pop(idle).upstream
        if left is not None:
            self._closing.start(left.close()).add_done_callback(_retrieve_error)

    async def _opened(self, own: _Own, seconds: float) -> Connected:
        """Return a user's connection. Open it if this is the first call."""
        if own.upstream is not None:
            return own.upstream
        async with own.turn, asyncio.timeout(seconds):
            if own.upstream is None:
                made = self._make(own.bearer, _only_changes(self._news, _ignore))
                try:
                    await made.open()
                except BaseException as error:
                    await close_completely(made)
                    if isinstance(error, ToolbusError):
                        error.data["sent"] = False  # nothing of the call was sent
                    raise
                made.learn(self._tools)
                own.upstream = made
        return own.upstream

    # -- while no user has connected -----------------------------------------------------------

    async def _wait_for_user(self) -> None:
        """Poll until a user has connected an account."""
        while not await self._bearer.line():  # noqa: ASYNC110 - the event is in another service
            await asyncio.sleep(CHECK_SECONDS)
        self._user_connected()

    async def _welcome(self) -> str:
        """Return the message for a user who has connected before the tools were listed."""
        if self._one_lists and not await self._bearer.line():
            return (
                "You are connected. The tools are listed after the account that an operator "
                "configured for listing is connected; ask your operator if this takes long."
            )
        self._user_connected()
        return "You are connected. List the tools again."

    def _user_connected(self) -> None:
        if not self._lost.done():
            self._lost.set_result("A user connected an account, so the server is listed.")


def _without_private(described: Described) -> Described:
    """Return a description without lists and notifications that can be private to one user."""
    shared = {name: value for name, value in described.capabilities.items() if name != "prompts"}
    if described.has("resources"):
        shared["resources"] = {}  # each user can read resources
    return replace(described, capabilities=shared)


def _unfollowed(otherwise: str) -> UpstreamRefusedError:
    """Return the error for notifications that would arrive on the connection of another user."""
    return UpstreamRefusedError(
        "Notifications of this server are not available, because each user has a separate "
        f"connection; {otherwise} instead.",
        upstream_code=METHOD_NOT_FOUND,
        sent=False,
    )


def _only_changes(
    news: UpstreamCallbacks, changed: Callable[[], None] | None = None
) -> UpstreamCallbacks:
    """Return the callbacks without those for notifications, which can be private to one user."""
    return replace(
        news,
        on_lists_changed=changed or news.on_lists_changed,
        on_notification=_discard,
        on_owner_message=None,
    )


def _ignore() -> None:
    """Ignore a changed list, because the main connection reports it."""


def _discard(_method: str, _params: bytes) -> None:
    """Discard a notification."""


def _retrieve_error(closing: "asyncio.Task[None]") -> None:
    """Ignore the error of closing a connection that is no longer used."""
    _ = closing.cancelled() or closing.exception()
