"""The events about calls that pass on the bus, distributed to watchers.

Ingress subscribes to them while at least one watcher can take further events. If calls come faster
than every watcher takes them, it unsubscribes until the next message to a watcher is sent: what a
watcher costs does not grow with the number of calls. Watchers see a part of the events then, and
each message says so.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec

from toolbus_common.contracts import CallAllowed, CallCompleted, CallDenied, CallFailed
from toolbus_common.contracts.events.base import parse_subject, subject_of
from toolbus_common.errors import OverloadedError
from toolbus_common.nats.connection import Bus, Subscription

MAX_WATCHERS = 64
MAX_WAITING = 200  # events of one watcher; more are left out
_WATCHED = (CallAllowed, CallDenied, CallCompleted, CallFailed)


class LiveEvent(msgspec.Struct, omit_defaults=True):
    """The part of an event about a call that watchers see; it has no arguments and no results."""

    at: float
    call_id: str
    server: str
    tool: str
    event: str = ""
    customer: str = ""
    key: str = ""
    team: str = ""
    method: str = ""
    parent_id: str = ""
    trace_id: str = ""
    charge: int = 0
    latency_us: int = 0
    code: str = ""
    rule: str = ""
    approval: str = ""


class LivePart(msgspec.Struct):
    """What a watcher receives in one message.

    `skipped` events arrived and were left out. If `sampled` is set, further events were left out
    and not counted.
    """

    events: list[LiveEvent]
    skipped: int
    sampled: bool


@dataclass(slots=True, eq=False)
class Watcher:
    """One connected watcher. `matches` selects its events."""

    matches: Callable[[LiveEvent], bool]
    skipped: int = 0
    sampled: bool = False
    closed: bool = False
    _waiting: deque[LiveEvent] = field(default_factory=deque)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def full(self) -> bool:
        """Whether further events are left out."""
        return len(self._waiting) >= MAX_WAITING

    def add(self, event: LiveEvent) -> None:
        """Add one event that matches."""
        if self.matches(event):
            self._waiting.append(event)
            self._arrived.set()

    async def wait(self, seconds: float) -> None:
        """Wait until there are events, but no longer than `seconds`."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._arrived.wait(), seconds)

    def take(self) -> LivePart:
        """Return the waiting events, and whether others were left out since the last time."""
        part = LivePart(list(self._waiting), self.skipped, self.sampled)
        self._waiting.clear()
        self.skipped, self.sampled = 0, False
        self._arrived.clear()
        return part

    def close(self) -> None:
        """End the watcher's stream."""
        self.closed = True
        self._arrived.set()


@dataclass(slots=True)
class LiveFeed:
    """Subscribes to events while there are watchers, and distributes them."""

    bus: Bus
    _watchers: set[Watcher] = field(default_factory=set)
    _subscriptions: list[Subscription] = field(default_factory=list)
    _changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _pausing: asyncio.Task[None] | None = None
    _decoder: Any = field(default_factory=lambda: msgspec.json.Decoder(LiveEvent))

    @property
    def following(self) -> bool:
        """Whether events arrive from the bus."""
        return bool(self._subscriptions)

    async def join(self, matches: Callable[[LiveEvent], bool]) -> Watcher:
        """Add a watcher. Raises `OverloadedError` if there are too many."""
        if len(self._watchers) >= MAX_WATCHERS:
            raise OverloadedError("Too many people watch calls at this replica. Retry later.")
        watcher = Watcher(matches)
        self._watchers.add(watcher)
        try:
            await self._follow()
        except BaseException:
            self._watchers.discard(watcher)  # its caller cannot call `leave`
            raise
        return watcher

    async def take(self, watcher: Watcher) -> LivePart:
        """Return the waiting events of a watcher, and follow the calls again if it was full."""
        part = watcher.take()
        if part.sampled:
            await self._follow()
        return part

    async def leave(self, watcher: Watcher) -> None:
        """Remove a watcher."""
        self._watchers.discard(watcher)
        await self._follow()

    def close(self) -> None:
        """End the streams of all watchers."""
        for watcher in self._watchers:
            watcher.close()

    async def _follow(self) -> None:
        """Subscribe while a watcher can take events; unsubscribe while none can."""
        async with self._changing:
            wanted = any(not each.full for each in self._watchers)
            if wanted:
                # An interrupted attempt may have left a part of the subscriptions.
                for event in _WATCHED[len(self._subscriptions) :]:
                    subject = subject_of(event.NAME, "*")
                    self._subscriptions.append(await self.bus.subscribe(subject, self._receive))
            else:
                for watcher in self._watchers:
                    watcher.sampled = True  # it follows the calls again when it takes its events
                while self._subscriptions:
                    await self._subscriptions.pop().stop()

    def _receive(self, data: bytes, subject: str, *_: Any) -> None:
        name, customer = parse_subject(subject)
        lines = data.splitlines()
        for place, line in enumerate(lines):
            if all(each.full for each in self._watchers):
                self._pause(len(lines) - place)
                return
            try:
                event = self._decoder.decode(line)
            except msgspec.MsgspecError:
                continue
            event.event, event.customer = name, customer
            for watcher in self._watchers:
                if watcher.full:
                    watcher.skipped += 1
                else:
                    watcher.add(event)

    def _pause(self, left_out: int) -> None:
        """Leave events out, and unsubscribe."""
        for watcher in self._watchers:
            watcher.skipped += left_out
            watcher.sampled = True
        if self._pausing is None or self._pausing.done():
            self._pausing = asyncio.create_task(self._follow())
