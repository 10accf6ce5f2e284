"""What code mode spends of a model's context, beside what every definition would have cost.

Counting happens after the answer was sent, many calls at a time, on a thread that waits for the
process that counts.
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
from toolbus_codemode.catalog.namespace import Shelf
from toolbus_codemode.tokens.counter_process import CountingProcess
from toolbus_codemode.tokens.definition_cost import Measure, definition
from toolbus_common.calls.event_fields import call_fields
from toolbus_common.contracts import CallAdmitted, ContextMeasured, ContextSpent, Event
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.mcp.builtin_server import EXECUTE

log = logging.getLogger(__name__)

MOST_WAITING = 1000  # calls not counted yet; beyond them the oldest goes uncounted, and is told
MOST_SERVERS = 100  # servers told apart in one event
OTHERS = "(others)"
DEFAULT_ENGINE = "starlark"


@dataclass(frozen=True, slots=True)
class Spent:
    """One call of code mode; `seen` is what its caller may use, `whole` what anybody may."""

    call: CallAdmitted
    answer: str
    seen: Shelf
    whole: Shelf

    @property
    def engine(self) -> str:
        """The language of the program the call carries; empty when it carries none."""
        if self.call.tool != EXECUTE:
            return ""
        return str(msgspec.json.decode(self.call.arguments).get("language", DEFAULT_ENGINE))


class Bookkeeper:
    """Has calls and definitions counted; for one thread at a time."""

    def __init__(self) -> None:
        self.measured: dict[str, dict[str, int]] = {}
        self.tokens = CountingProcess()
        self.measure = Measure(self.tokens)

    def events(self, batch: list[Spent]) -> list[Event]:
        """What is newly known of definitions, and what each call has cost."""
        return [*self._measured(batch[-1].whole), *map(self._spent, batch)]

    @cached_property
    def own(self) -> int:
        """What code mode's own tools cost a request that lists them."""
        listed = (each.definition for each in own_listing().tools)
        return sum(
            self.tokens.of(definition(each["name"], each["description"], each["inputSchema"]))
            for each in listed
        )

    def _measured(self, whole: Shelf) -> Iterator[Event]:
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

    def _spent(self, spent: Spent) -> Event:
        return ContextSpent(
            id=f"{spent.call.call_id}.spent",
            **call_fields(spent.call, spent.call.customer, spent.call.key),
            engine=spent.engine,
            classic=self.measure.servers(spent.seen, MOST_SERVERS, OTHERS),
            own_tokens=self.own,
            request_tokens=self.tokens.of(spent.call.arguments.decode(errors="replace")),
            answer_tokens=self.tokens.of(spent.answer),
            counted_by=self.tokens.counted_by,
        )


class Spending:
    """Takes calls as they end, and says what each has cost when it is counted."""

    def __init__(self, say: Callable[[Event], None]) -> None:
        self._say = say
        self._waiting: asyncio.Queue[Spent] = asyncio.Queue(MOST_WAITING)
        self._bookkeeper = Bookkeeper()

    def note(self, spent: Spent) -> None:
        """Have a call counted soon."""
        if self._waiting.full():
            lost = self._waiting.get_nowait()
            log.warning("context.uncounted", extra={"call_id": lost.call.call_id})
        self._waiting.put_nowait(spent)

    @asynccontextmanager
    async def counting(self) -> AsyncIterator[None]:
        """Count while this is open, and in the end what still waits."""
        with ThreadPoolExecutor(1, "tokens") as thread:
            counter = asyncio.create_task(self._count(thread))
            try:
                yield
            finally:
                counter.cancel()
                await asyncio.gather(counter, return_exceptions=True)
                await self._tell(thread, self._taken())
                self._bookkeeper.tokens.close()

    async def _count(self, thread: ThreadPoolExecutor) -> None:
        while True:
            await self._tell(thread, [await self._waiting.get(), *self._taken()])

    def _taken(self) -> list[Spent]:
        return [self._waiting.get_nowait() for _ in range(self._waiting.qsize())]

    async def _tell(self, thread: ThreadPoolExecutor, batch: list[Spent]) -> None:
        if not batch:
            return
        loop = asyncio.get_running_loop()
        try:
            told = await loop.run_in_executor(thread, self._bookkeeper.events, batch)
        except Exception:
            log.exception("context.not_counted", extra={"calls": len(batch)})
        else:
            for event in told:
                self._say(event)
