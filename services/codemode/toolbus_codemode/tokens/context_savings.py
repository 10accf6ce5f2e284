"""Context cost of code mode, compared with the cost of listing every definition.

Tokens are counted after the response was sent, in batches, on a thread that waits for the counting
process.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from time import time

import msgspec

from toolbus_codemode.catalog.builtin_tools import own_listing
from toolbus_codemode.catalog.namespace import ToolNamespace
from toolbus_codemode.tokens.counter_process import CountingProcess
from toolbus_codemode.tokens.definition_cost import DefinitionCounter, definition
from toolbus_common.calls.event_fields import call_fields
from toolbus_common.concurrency import in_background
from toolbus_common.contracts import CallAdmitted, ContextMeasured, ContextSpent, Event
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.mcp.builtin_server import EXECUTE

log = logging.getLogger(__name__)

MAX_WAITING = 1000  # maximum queue of calls; then the oldest call is dropped and logged
MAX_SERVERS = 100  # servers listed in one event
OTHERS = "(others)"
DEFAULT_ENGINE = "starlark"


@dataclass(frozen=True, slots=True)
class CountedCall:
    """Call of code mode. `seen` has the tools that the caller may use; `whole` has all tools."""

    call: CallAdmitted
    answer: str
    seen: ToolNamespace
    whole: ToolNamespace

    @property
    def engine(self) -> str:
        """Language of the call's program; empty if the call has no program."""
        if self.call.tool != EXECUTE:
            return ""
        return str(msgspec.json.decode(self.call.arguments).get("language", DEFAULT_ENGINE))


class ContextCounter:
    """Counter of calls and definitions. Not thread-safe."""

    def __init__(self) -> None:
        self.measured: dict[str, dict[str, int]] = {}
        self.tokens = CountingProcess()
        self.measure = DefinitionCounter(self.tokens)

    def events(self, batch: list[CountedCall]) -> list[Event]:
        """Return an event per server with changed definitions, and an event per call."""
        return [*self._measured(batch[-1].whole), *map(self._spent, batch)]

    @cached_property
    def own(self) -> int:
        """Tokens of the definitions of the built-in tools."""
        listed = (each.definition for each in own_listing().tools)
        return sum(
            self.tokens.of(definition(each["name"], each["description"], each["inputSchema"]))
            for each in listed
        )

    def _measured(self, whole: ToolNamespace) -> Iterator[Event]:
        before, self.measured = self.measured, self.measure.tools(whole)
        for server, tools in self.measured.items():
            if before.get(server) != tools:
                yield ContextMeasured(
                    id=f"{server}.measured.{time():.6f}",
                    at=time(),
                    customer=DEFAULT_CUSTOMER,
                    server=server,
                    tools=tools,
                    counted_by=self.tokens.counted_by,
                )

    def _spent(self, spent: CountedCall) -> Event:
        return ContextSpent(
            id=f"{spent.call.call_id}.spent",
            **call_fields(spent.call, spent.call.customer, spent.call.key),
            engine=spent.engine,
            classic=self.measure.servers(spent.seen, MAX_SERVERS, OTHERS),
            own_tokens=self.own,
            request_tokens=self.tokens.of(spent.call.arguments.decode(errors="replace")),
            answer_tokens=self.tokens.of(spent.answer),
            counted_by=self.tokens.counted_by,
        )


class ContextMeter:
    """Queue of calls to count; an event is published for each counted call."""

    def __init__(self, publish: Callable[[Event], None]) -> None:
        self._publish = publish
        self._waiting: asyncio.Queue[CountedCall] = asyncio.Queue(MAX_WAITING)
        self._counter = ContextCounter()

    def note(self, spent: CountedCall) -> None:
        """Queue a call."""
        if self._waiting.full():
            lost = self._waiting.get_nowait()
            log.warning("context.call_dropped", extra={"call_id": lost.call.call_id})
        self._waiting.put_nowait(spent)

    @asynccontextmanager
    async def counting(self) -> AsyncIterator[None]:
        """Count queued calls until the context exits, and the remaining calls at its exit."""
        with ThreadPoolExecutor(1, "tokens") as thread:
            try:
                async with in_background(self._count(thread)):
                    yield
            finally:
                await self._publish_counted(thread, self._take_waiting())
                self._counter.tokens.close()

    async def _count(self, thread: ThreadPoolExecutor) -> None:
        while True:
            await self._publish_counted(thread, [await self._waiting.get(), *self._take_waiting()])

    def _take_waiting(self) -> list[CountedCall]:
        return [self._waiting.get_nowait() for _ in range(self._waiting.qsize())]

    async def _publish_counted(self, thread: ThreadPoolExecutor, batch: list[CountedCall]) -> None:
        if not batch:
            return
        loop = asyncio.get_running_loop()
        try:
            events = await loop.run_in_executor(thread, self._counter.events, batch)
        except Exception:
            log.exception("context.not_counted", extra={"calls": len(batch)})
        else:
            for event in events:
                self._publish(event)
