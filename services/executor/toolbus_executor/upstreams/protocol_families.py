"""Upstream for both protocol families: each call uses the family of its caller.

The stateless family is connected first and used for listing. The other family is connected when a
caller first needs it, so that a server without the other family receives no handshake. A process
may support only the family of its first message, so another process is started for the other
family.
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
from toolbus_common.errors import ToolbusError, UpstreamDeadError, UpstreamTimeoutError
from toolbus_executor.resilience.failure_log import why
from toolbus_executor.resilience.health_probe import NotConnectedError
from toolbus_executor.upstreams.base import (
    Described,
    NoSuchFamilyError,
    Send,
    Upstream,
    UpstreamCallbacks,
    close_completely,
    plain_sender,
    sends_requests,
    separates,
)
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.listing import TOOLS, every_page
from toolbus_executor.upstreams.sessions.separate_sessions import Separated, Separation

log = logging.getLogger(__name__)

CONNECT_SECONDS = {False: 5.0, True: 20.0}  # timeout by `is_process`: a process takes longer
RETRY_SECONDS = 30.0  # pause before the other family is tried again after a temporary failure
MAX_TASKS = 5_000

Make = Callable[[Server, UpstreamCallbacks], Upstream]


def create_in_families(
    declared: Server,
    news: UpstreamCallbacks,
    make: Make,
    separation: Separation | None = None,
    place: str = "",
) -> Upstream:
    """Return the upstream of a server for the configured family, or for both families."""

    def over(declared: Server) -> Upstream:
        if separation is None:
            return make(declared, news)
        return separation.over(news, lambda own: make(declared, own), place, declared.protocol)

    if declared.protocol != "auto" or declared.sse or not declared.has_sessions:
        return over(declared)
    other = declared.model_copy(update={"protocol": "legacy"})
    return BothFamilies(over(declared), lambda: over(other), news, is_process=declared.is_process)


@dataclass(slots=True)
class _Other:
    """The connection to the server in the session-based family."""

    upstream: Upstream
    described: Described
    tasks: dict[str, str] = field(default_factory=dict)


class BothFamilies:
    """An upstream for both families. `other` creates the upstream for the session-based family."""

    def __init__(
        self,
        first: Upstream,
        other: Callable[[], Upstream],
        news: UpstreamCallbacks,
        *,
        is_process: bool,
    ) -> None:
        self._news = news
        self._first = first
        self._make_other = other
        self._is_process = is_process
        self._other: _Other | None = None
        self._modern = False  # if false, there is no other family
        self._retry_at = 0.0
        self._closed = False
        self._connecting = asyncio.Lock()
        self._watching_other: asyncio.Task[None] | None = None
        self._tools: Collection[CatalogEntry] = ()

    @property
    def left_out(self) -> dict[str, str]:
        """Entries that the latest lists omit, with the reasons."""
        return self._first.left_out

    @left_out.setter
    def left_out(self, reasons: dict[str, str]) -> None:
        self._first.left_out = reasons

    @property
    def sends_requests(self) -> bool:
        """Whether the server may send requests to a client during a call."""
        return self._first.sends_requests

    @property
    def separates(self) -> bool:
        """Whether each owner has a separate session, in any family."""
        both = (self._first, self._other.upstream if self._other else None)
        return any(getattr(each, "separates", False) for each in both)

    @property
    def lists(self) -> Upstream:
        """The upstream that lists and is probed."""
        return self._first

    @property
    def handshake(self) -> Handshake | None:
        """The server's description in the other family; None if that family is not connected."""
        if self._other is None:
            return None
        described = self._other.described
        return Handshake(
            version=described.version,
            instructions=described.instructions,
            capabilities=described.capabilities,
            server_info=described.info,
            tasks=self._other.tasks,
        )

    @property
    def pid(self) -> int | None:
        """The process id of the process for listing while it runs, otherwise None."""
        return getattr(self._first, "pid", None)

    @property
    def held(self) -> dict[str, bool]:
        """The isolation in force."""
        return getattr(self._first, "held", {})

    @property
    def denied_hosts(self) -> dict[str, int]:
        """The hosts that the proxy rejected, each with the number of requests."""
        return self._of_both("denied_hosts")

    @property
    def denied_files(self) -> dict[str, str]:
        """The hidden files that the processes need, each with `read` or `write`."""
        return self._of_both("denied_files")

    def sends_requests_in(self, call: CallAdmitted) -> bool:
        """Return whether the server may send requests to the client during this call."""
        if not self._wants_other(call):
            return sends_requests(self._first, call)
        return True if self._other is None else sends_requests(self._other.upstream, call)

    def separates_in(self, call: CallAdmitted) -> bool:
        """Return whether this call needs a session that belongs to its caller alone."""
        if not self._wants_other(call) or self._other is None:
            return separates(self._first, call)
        return separates(self._other.upstream, call)

    def spared(self, call: CallAdmitted) -> bool:
        """Return whether a failure of this call should not count as a failure of the server."""
        wanted = self._other.upstream if self._other and self._wants_other(call) else self._first
        return isinstance(wanted, Separated) and wanted.spared(call)

    async def open(self) -> Described:
        """Connect the first family."""
        described = await self._first.open()
        self._modern = described.family == "modern" and not described.ours
        return described

    async def list_page(self, method: str, cursor: str | None) -> dict[str, Any]:
        """Return one page of a list.

        Listing the tools over HTTP also refreshes the other family, if it is connected.
        """
        page = await self._first.list_page(method, cursor)
        other, first_tools = self._other, method == TOOLS.method and cursor is None
        if other is not None and not self._is_process and first_tools:
            await self._refresh_other(other)
        return page

    def learn(self, tools: Collection[CatalogEntry]) -> None:
        """Store the definitions of the listed tools."""
        self._tools = tools
        self._first.learn(tools)
        self._pass_tools()

    def call(
        self, call: CallAdmitted, seconds: float, caller: Caller
    ) -> Coroutine[Any, Any, bytes]:
        """Send a call in the family of its caller, and return its result."""
        if not self._wants_other(call):
            return self._first.call(call, seconds, caller)
        if self._other is not None:
            return self._other.upstream.call(call, seconds, caller)
        return self._connect_and_call(call, seconds, caller)

    def plain_sender(self, tool: str) -> Send | None:
        """Return the function that sends plain calls of a tool, in the first family."""
        return plain_sender(self._first, tool)

    async def subscribe(self, call: CallAdmitted, seconds: float) -> bytes:
        """Subscribe the owner of a call to a resource or a task, and return the result."""
        use = self._other.upstream if self._other and self._wants_other(call) else self._first
        return await cast("Separated", use).subscribe(call, seconds)

    async def probe(self) -> None:
        """Check that the server responds."""
        probe = getattr(self._first, "probe", None)
        if probe is None:
            raise NotConnectedError
        await probe()

    async def watch(self, uris: frozenset[str]) -> None:
        """Subscribe to changes of these resources, in each family that supports it."""
        await self._all(lambda upstream: upstream.watch(uris))

    async def follow(self, tasks: frozenset[str]) -> None:
        """Subscribe to status changes of these tasks, in each family that supports it."""
        await self._all(lambda upstream: upstream.follow(tasks))

    async def wait_lost(self) -> str:
        """Wait until the server must be reconnected, and return the reason."""
        return await self._first.wait_lost()

    async def close(self) -> None:
        """Close the connections of both families."""
        self._closed = True
        if self._watching_other is not None:
            await end(self._watching_other)
        other, self._other = self._other, None
        await asyncio.gather(
            close_completely(self._first),
            *((close_completely(other.upstream),) if other is not None else ()),
        )

    # -- the other family ----------------------------------------------------------------------

    def _wants_other(self, call: CallAdmitted) -> bool:
        """Return whether a call should use the other family."""
        if not self._modern or not call.caller_is_legacy:
            return False
        return self._other is not None or monotonic() >= self._retry_at

    async def _connect_and_call(self, call: CallAdmitted, seconds: float, caller: Caller) -> bytes:
        """Connect the other family and send the call there.

        If the server does not support the other family, the first family is used. Raises
        `UpstreamTimeoutError` if the family is not connected in time.
        """
        began = monotonic()
        try:
            async with asyncio.timeout(seconds):
                other = await self._connect()
        except TimeoutError as error:
            raise UpstreamTimeoutError(
                f"The upstream was not connected in the caller's protocol family within "
                f"{seconds:.3g} s; the call was not executed. Retry, or raise the timeout.",
                sent=False,
            ) from error
        if other is not None:
            self._news.on_lists_changed()  # publish the description of the other family
        use = self._first if other is None else other.upstream
        return await use.call(call, seconds - (monotonic() - began), caller)

    async def _connect(self) -> _Other | None:
        """Connect the other family. Return None if the server does not support it at present."""
        async with self._connecting:
            if self._other is not None or self._closed or monotonic() < self._retry_at:
                return self._other
            made = self._make_other()
            try:
                async with asyncio.timeout(CONNECT_SECONDS[self._is_process]):
                    connected = _Other(made, await made.open())
                    connected.tasks = await _tasks(connected)
            except BaseException as error:
                await close_completely(made)
                if not isinstance(error, ToolbusError | TimeoutError):
                    raise
                refused = isinstance(error, NoSuchFamilyError)
                self._retry_at = inf if refused else monotonic() + RETRY_SECONDS
                log.info("server.one_family", extra={"final": refused, "reason": why(error)})
                return None
            if self._closed:
                await close_completely(made)
                raise UpstreamDeadError("The server was disconnected; retry.", sent=False)
            self._other = connected
            self._pass_tools()
            self._watching_other = asyncio.create_task(self._watch_other(connected))
        return connected

    async def _watch_other(self, connected: _Other) -> None:
        """Close the other family when its connection is lost.

        The next call that needs the other family connects it again.
        """
        await connected.upstream.wait_lost()
        await self._drop(connected)

    async def _drop(self, connected: _Other) -> None:
        if self._other is connected:
            self._other = None
            await close_completely(connected.upstream)

    async def _refresh_other(self, connected: _Other) -> None:
        """Refresh the task support of the other family. If that fails, reconnect it."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS[False]):
                connected.tasks = await _tasks(connected)
        except (ToolbusError, TimeoutError):
            await self._drop(connected)
            await self._connect()

    def _pass_tools(self) -> None:
        """Pass the tools to the other family, each with its task support in that family."""
        if self._other is None:
            return
        tasks = self._other.tasks
        self._other.upstream.learn([_with_task(each, tasks.get(each.name)) for each in self._tools])

    async def _all(self, request: Callable[[Upstream], Awaitable[None]]) -> None:
        """Send a request in both families. Raises the first error if both requests fail."""
        if self._other is None:
            await request(self._first)
            return
        results = await asyncio.gather(
            request(self._first), request(self._other.upstream), return_exceptions=True
        )
        errors = [each for each in results if isinstance(each, BaseException)]
        if len(errors) == len(results):
            raise errors[0]

    def _of_both(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for each in (self._first, self._other.upstream if self._other else None):
            found |= getattr(each, name, {})
        return found


async def _tasks(connected: _Other) -> dict[str, str]:
    """Return the task support of tools in the session-based family, by name.

    Tools that cannot run as tasks are omitted.
    """
    if not connected.described.has(TOOLS.capability):
        return {}
    found: dict[str, str] = {}
    for entry in (await every_page(TOOLS, connected.upstream.list_page))[:MAX_TASKS]:
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
