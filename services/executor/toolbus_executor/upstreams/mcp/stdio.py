"""An upstream over stdio: one JSON message a line, ids multiplexed, in either family."""

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
    UpstreamFaultError,
    UpstreamRefusedError,
)
from toolbus_executor.isolation.child_process import Child
from toolbus_executor.isolation.plan import Isolation
from toolbus_executor.isolation.standard_error import StandardError
from toolbus_executor.mcp_messages.client_capabilities import Kinds, declared
from toolbus_executor.mcp_messages.request_builder import listen_body
from toolbus_executor.resilience.health_probe import UnaskedError
from toolbus_executor.results.large.spill_registry import Spills
from toolbus_executor.upstreams.base import Described, News, NoSuchFamilyError
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.mcp import messages
from toolbus_executor.upstreams.mcp.multiplexer import Line
from toolbus_executor.upstreams.mcp_tasks.service import Tasking
from toolbus_executor.upstreams.subscriptions import (
    listen_params,
    refuse_unless_following,
    refuse_unless_subscribable,
)

PROBE_SECONDS = 5.0
STARTING_SECONDS = 15.0  # where there is no other question to try
ANSWER_SECONDS = 4.0  # what the answer to a later probe may take
LARGEST_HEEDED = 4096  # bytes of a result that may say which file its server missed
IS_ERROR = re.compile(rb'"isError"\s*:\s*true')
MOST_MISSED = 5  # probes in a row, as many as open a breaker


class StdioUpstream:
    """One server process; `errors` makes what takes its standard error."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        cwd: str,
        news: News,
        isolation: Isolation | None = None,
        spills: Spills | None = None,
        errors: Callable[[], StandardError] = StandardError,
    ) -> None:
        self._command = command
        self._environment = environment
        self._cwd = cwd or None
        self.protocol: Protocol = "auto"  # the family it is spoken to in
        self._isolation = isolation or Isolation(cwd=cwd)
        self._numbers = itertools.count(1)
        self._line = Line(news, self._write, self._numbers)
        self._spills = spills
        self._errors = errors
        self._child = Child(self._take, spills, errors())
        self._listening = 0
        self._watched: frozenset[str] = frozenset()
        self._followed: frozenset[str] = frozenset()
        self._tasking = Tasking()
        self._missed = 0
        self._answers = False  # probes, as its protocol has it
        self.left_out: dict[str, str] = {}

    @property
    def pid(self) -> int | None:
        """The server's process, while it runs."""
        return self._child.pid

    @property
    def held(self) -> dict[str, bool]:
        """What its process is held to on this machine, and what not."""
        return self._child.held

    @property
    def refused_hosts(self) -> dict[str, int]:
        """Hosts it wanted to reach and may not, where only some are listed."""
        gate = self._isolation.gate
        return gate.refused if gate is not None else {}

    @property
    def refused_files(self) -> dict[str, str]:
        """Files it missed and is not shown, each with what it wanted: to read or to write."""
        return self._child.unseen.files

    @property
    def asks(self) -> bool:
        """Whether the server may ask back in the middle of a call."""
        return not self._line.modern

    @property
    def certain(self) -> bool:
        """Whether no call that is gone may still be at work in the server."""
        return self._line.board.certain

    def declare(self, kinds: Kinds) -> None:
        """Have a handshake declare only what the connection's one client can be asked."""
        self._line.kinds = kinds

    def notify(self, method: str) -> None:
        """Tell the server something of its client, in the revisions that have a handshake."""
        if not self._line.modern:
            self._line.notify(method)

    async def open(self) -> Described:
        """Start the process; ask it server/discover, and shake hands if it does not know that."""
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
            # Some servers end when the first thing they hear is no handshake.
            await self._child.close()
            self._child = Child(self._take, self._spills, self._errors())
            await self._start()
        try:
            return await self._line.initialize()
        except UpstreamRefusedError:
            # A server that took long to start has heard the first question after all.
            described = await self._discover()
            if described is None:
                raise
            return self._found(described)

    async def list_page(self, method: str, cursor: str | None) -> dict[str, Any]:
        """One page of a list."""
        message = await self._line.request(method, {} if cursor is None else {"cursor": cursor})
        result: dict[str, Any] = msgspec.json.decode(messages.result_of(message))
        return result

    async def list_as(self, kinds: Kinds, method: str, cursor: str | None) -> dict[str, Any]:
        """One page as a stateless server lists it to clients that declare these kinds."""
        params = {} if cursor is None else {"cursor": cursor}
        able = msgspec.json.encode(declared(kinds)).decode()
        message = await self._line.request(method, params, capabilities=able)
        result: dict[str, Any] = msgspec.json.decode(messages.result_of(message))
        return result

    def learn(self, tools: Collection[CatalogEntry]) -> None:
        """Take note of the tools as listed."""
        self._tasking.learn(tools)

    async def call(self, call: CallAdmitted, seconds: float, caller: Caller) -> bytes:
        """Ask the server; what concerns tasks has ways of its own."""
        modern = not self.asks
        return await self._tasking.ask(call, seconds, caller, self._once, modern=modern)

    async def watch(self, uris: frozenset[str]) -> None:
        """Hear of changes of these resources."""
        if not self._line.modern:
            await self._line.watch(uris)
        elif uris != self._watched:
            if uris - self._watched:
                refuse_unless_subscribable(self._line.described)
            self._watched = uris
            self._listen_anew()

    async def follow(self, tasks: frozenset[str]) -> None:
        """Hear of these tasks."""
        if tasks:
            refuse_unless_following(self._line.described)
        if tasks != self._followed:
            self._followed = tasks
            self._listen_anew()

    async def probe(self) -> None:
        """Ask whether it is there; one that has answered, and does not any more, is ended.

        Who never answered does not know the question: nothing is made of that.
        """
        question = "server/discover" if self._line.modern else "ping"
        try:
            await self._line.request(question, {}, ANSWER_SECONDS)
        except TimeoutError:
            if not self._answers and not self._line.modern:
                raise UnaskedError from None
            self._missed += 1
            if self._missed >= MOST_MISSED:
                self._child.give_up(f"it did not answer {MOST_MISSED} probes in a row")
            raise
        self._answers, self._missed = True, 0

    async def wait_lost(self) -> str:
        """Wait for the process's end."""
        return f"Its process ended: {await asyncio.shield(self._child.ended)}."

    async def close(self) -> None:
        """End the process."""
        await self._child.close()

    async def _once(self, call: CallAdmitted, seconds: float, caller: Caller) -> bytes:
        result = messages.result_of(await self._line.call(call, seconds, caller))
        if len(result) <= LARGEST_HEEDED and IS_ERROR.search(result):
            self._child.unseen.heed(result)
        return result

    async def _start(self) -> None:
        self._child.ended.add_done_callback(self._fail_all)
        await self._child.start(self._command, self._environment, self._cwd, self._isolation)

    def _found(self, described: Described) -> Described:
        self._line.described = described
        self._listen_anew()
        return described

    async def _shake_hands(self) -> Described:
        """Begin with the handshake: a process may speak the family it first heard, and no other."""
        try:
            return await self._line.initialize()
        except UpstreamRefusedError as error:
            raise NoSuchFamilyError.legacy() from error

    async def _discover(self, seconds: float = PROBE_SECONDS) -> Described | None:
        self._line.modern, self._line.board.may_ask = True, False
        try:
            return messages.discovered(await self._line.request("server/discover", {}, seconds))
        except (TimeoutError, UpstreamFaultError, UpstreamDeadError):
            return None

    def _listen_anew(self) -> None:
        """Begin the subscription that is wanted now, and leave the one before."""
        before, self._listening = self._listening, 0
        params = listen_params(self._line.described, self._watched, self._followed)
        if params is not None:
            # Answered when the server ends the subscription, which may be never: nobody waits.
            self._listening = next(self._numbers)
            body = listen_body(self._listening, params)
            with suppress(ToolbusError):
                self._write(body)
        if before:
            self._line.cancel(before)

    def _write(self, body: bytes) -> None:
        self._child.write(body)

    def _fail_all(self, ended: asyncio.Future[str]) -> None:
        self._line.board.fail(
            lambda: UpstreamDeadError(f"The upstream's process ended: {ended.result()}.")
        )

    def _take(self, line: bytes) -> None:
        try:
            message = messages.read(line)
        except UpstreamFaultError:
            return  # servers print banners; a line that is no message answers nothing
        self._line.board.take(message)
