"""Upstream for an MCP server over stdio: one message per line, with multiplexed requests."""

import asyncio
import itertools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from toolbus_common.config.servers.server import Protocol
from toolbus_common.contracts import CallAdmitted, CatalogEntry
from toolbus_common.errors import (
    ToolbusError,
    UpstreamDeadError,
    UpstreamInvalidError,
    UpstreamRefusedError,
)
from toolbus_executor.isolation.child_process import Child
from toolbus_executor.isolation.plan import Isolation
from toolbus_executor.isolation.standard_error import StandardError
from toolbus_executor.mcp_messages.client_capabilities import Kinds, declared
from toolbus_executor.mcp_messages.request_builder import listen_body
from toolbus_executor.resilience.health_probe import NoProbeError
from toolbus_executor.results.large.spill_registry import SpillRegistry
from toolbus_executor.upstreams.base import Described, NoSuchFamilyError, UpstreamCallbacks
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.mcp import messages
from toolbus_executor.upstreams.mcp.multiplexer import MultiplexedConnection
from toolbus_executor.upstreams.mcp_tasks.service import TaskSupport
from toolbus_executor.upstreams.subscriptions import (
    listen_params,
    refuse_unless_following,
    refuse_unless_subscribable,
)

PROBE_SECONDS = 5.0
STARTING_SECONDS = 15.0  # timeout of the first request if no other family is possible
ANSWER_SECONDS = 4.0  # timeout of a health probe
LARGEST_HEEDED = 4096  # bytes; larger results are not searched for missing files
IS_ERROR = re.compile(rb'"isError"\s*:\s*true')
MAX_MISSED = 5  # consecutive missed probes, the same number that opens a breaker


class StdioUpstream:
    """A server process. `errors` creates the reader of its standard error."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        cwd: str,
        news: UpstreamCallbacks,
        isolation: Isolation | None = None,
        spills: SpillRegistry | None = None,
        errors: Callable[[], StandardError] = StandardError,
    ) -> None:
        self._command = command
        self._environment = environment
        self._cwd = cwd or None
        self.protocol: Protocol = "auto"  # the protocol family to use
        self._isolation = isolation or Isolation(cwd=cwd)
        self._numbers = itertools.count(1)
        self._connection = MultiplexedConnection(news, self._write, self._numbers)
        self._spills = spills
        self._errors = errors
        self._child = Child(self._take, spills, errors())
        self._listening = 0
        self._watched: frozenset[str] = frozenset()
        self._followed: frozenset[str] = frozenset()
        self._tasking = TaskSupport()
        self._missed = 0
        self._answers = False  # whether the process has ever responded to a probe
        self.left_out: dict[str, str] = {}

    @property
    def pid(self) -> int | None:
        """The process id of the server while it runs, otherwise None."""
        return self._child.pid

    @property
    def held(self) -> dict[str, bool]:
        """The isolation in force."""
        return self._child.held

    @property
    def denied_hosts(self) -> dict[str, int]:
        """The hosts that the proxy rejected, each with the number of requests."""
        gate = self._isolation.gate
        return gate.refused if gate is not None else {}

    @property
    def denied_files(self) -> dict[str, str]:
        """The hidden files that the process needs, each with `read` or `write`."""
        return self._child.unseen.files

    @property
    def sends_requests(self) -> bool:
        """Whether the server may send requests to a client during a call."""
        return not self._connection.modern

    @property
    def certain(self) -> bool:
        """Whether all earlier calls have certainly ended in the server."""
        return self._connection.dispatcher.certain

    def declare(self, kinds: Kinds) -> None:
        """Set the capabilities that the handshake declares.

        The connection must have one client only.
        """
        self._connection.kinds = kinds

    def notify(self, method: str) -> None:
        """Send a session-based server a notification about a change at its client."""
        if not self._connection.modern:
            self._connection.notify(method)

    async def open(self) -> Described:
        """Start the process and detect its protocol family.

        `server/discover` is tried first, then the handshake.
        """
        await self._start()
        if self.protocol == "legacy":
            return await self._shake_hands()
        modern_only = self.protocol == "modern"
        described = await self._discover(STARTING_SECONDS if modern_only else PROBE_SECONDS)
        if described is not None:
            return self._found(described)
        if modern_only:
            raise NoSuchFamilyError.modern()
        if self._child.ended.done():
            # Some servers exit if the first message is not a handshake.
            await self._child.close()
            self._child = Child(self._take, self._spills, self._errors())
            await self._start()
        try:
            return await self._connection.initialize()
        except UpstreamRefusedError:
            # A server that started slowly may have processed the first request in the meantime.
            described = await self._discover()
            if described is None:
                raise
            return self._found(described)

    async def list_page(self, method: str, cursor: str | None) -> dict[str, Any]:
        """Return one page of a list."""
        message = await self._connection.request(
            method, {} if cursor is None else {"cursor": cursor}
        )
        result: dict[str, Any] = msgspec.json.decode(messages.result_of(message))
        return result

    async def list_as(self, kinds: Kinds, method: str, cursor: str | None) -> dict[str, Any]:
        """Return one page of a list of a stateless server, for clients that declare these kinds."""
        params = {} if cursor is None else {"cursor": cursor}
        able = msgspec.json.encode(declared(kinds)).decode()
        message = await self._connection.request(method, params, capabilities=able)
        result: dict[str, Any] = msgspec.json.decode(messages.result_of(message))
        return result

    def learn(self, tools: Collection[CatalogEntry]) -> None:
        """Store the definitions of the listed tools."""
        self._tasking.learn(tools)

    async def call(self, call: CallAdmitted, seconds: float, caller: Caller) -> bytes:
        """Send a call and return its result.

        Calls about tasks are converted between the families.
        """
        modern = not self.sends_requests
        return await self._tasking.request(call, seconds, caller, self._once, modern=modern)

    async def watch(self, uris: frozenset[str]) -> None:
        """Subscribe to changes of these resources."""
        if not self._connection.modern:
            await self._connection.watch(uris)
        elif uris != self._watched:
            if uris - self._watched:
                refuse_unless_subscribable(self._connection.described)
            self._watched = uris
            self._resubscribe()

    async def follow(self, tasks: frozenset[str]) -> None:
        """Subscribe to status changes of these tasks."""
        if tasks:
            refuse_unless_following(self._connection.described)
        if tasks != self._followed:
            self._followed = tasks
            self._resubscribe()

    async def probe(self) -> None:
        """Check that the process responds.

        After `MAX_MISSED` consecutive missed probes, the process is ended. A process that has never
        responded to a probe may not support the request, which is no failure.

        Raises:
            TimeoutError: the process did not respond in time.
            NoProbeError: the process has never responded to a probe.

        """
        method = "server/discover" if self._connection.modern else "ping"
        try:
            await self._connection.request(method, {}, ANSWER_SECONDS)
        except TimeoutError:
            if not self._answers and not self._connection.modern:
                raise NoProbeError from None
            self._missed += 1
            if self._missed >= MAX_MISSED:
                self._child.give_up(f"it did not respond to {MAX_MISSED} probes in a row")
            raise
        self._answers, self._missed = True, 0

    async def wait_lost(self) -> str:
        """Wait until the process ends, and return the reason."""
        return f"Its process ended: {await asyncio.shield(self._child.ended)}."

    async def close(self) -> None:
        """End the process."""
        await self._child.close()

    async def _once(self, call: CallAdmitted, seconds: float, caller: Caller) -> bytes:
        result = messages.result_of(await self._connection.call(call, seconds, caller))
        if len(result) <= LARGEST_HEEDED and IS_ERROR.search(result):
            self._child.unseen.scan(result)
        return result

    async def _start(self) -> None:
        self._child.ended.add_done_callback(self._fail_all)
        await self._child.start(self._command, self._environment, self._cwd, self._isolation)

    def _found(self, described: Described) -> Described:
        self._connection.described = described
        self._resubscribe()
        return described

    async def _shake_hands(self) -> Described:
        """Perform the handshake as the first request."""
        try:
            return await self._connection.initialize()
        except UpstreamRefusedError as error:
            raise NoSuchFamilyError.legacy() from error

    async def _discover(self, seconds: float = PROBE_SECONDS) -> Described | None:
        self._connection.modern, self._connection.dispatcher.may_ask = True, False
        try:
            return messages.discovered(
                await self._connection.request("server/discover", {}, seconds)
            )
        except (TimeoutError, UpstreamInvalidError, UpstreamDeadError):
            return None

    def _resubscribe(self) -> None:
        """Start a subscription for the current resources and tasks, and cancel the previous one."""
        before, self._listening = self._listening, 0
        params = listen_params(self._connection.described, self._watched, self._followed)
        if params is not None:
            # No code waits for the response, which the server sends at the end of the subscription.
            self._listening = next(self._numbers)
            body = listen_body(self._listening, params)
            with suppress(ToolbusError):
                self._write(body)
        if before:
            self._connection.cancel(before)

    def _write(self, body: bytes) -> None:
        self._child.write(body)

    def _fail_all(self, ended: asyncio.Future[str]) -> None:
        self._connection.dispatcher.fail(
            lambda: UpstreamDeadError(f"The upstream's process ended: {ended.result()}.")
        )

    def _take(self, line: bytes) -> None:
        try:
            message = messages.read(line)
        except UpstreamInvalidError:
            return  # some servers print banners
        self._connection.dispatcher.take(message)
