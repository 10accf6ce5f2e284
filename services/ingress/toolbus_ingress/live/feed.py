"""The events about calls that pass on the bus, distributed to watchers.

Ingress subscribes to them while at least one watcher is connected. A watcher that cannot take all
events receives a part of them, and the number of the others.
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
MAX_WAITING = 200  # events of one watcher; more are counted and left out
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


@dataclass(slots=True, eq=False)
class Watcher:
    """One connected watcher. `matches` selects its events."""

    matches: Callable[[LiveEvent], bool]
    skipped: int = 0
    closed: bool = False
    _waiting: deque[LiveEvent] = field(default_factory=deque)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, event: LiveEvent) -> None:
        """Add one event, or count it if too many wait already."""
        if not self.matches(event):
            return
        if len(self._waiting) >= MAX_WAITING:
            self.skipped += 1
        else:
            self._waiting.append(event)
        self._arrived.set()

    async def wait(self, seconds: float) -> None:
        """Wait until there are events, but no longer than `seconds`."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._arrived.wait(), seconds)

    def take(self) -> tuple[list[LiveEvent], int]:
        """Return the waiting events, and how many were left out since the last time."""
        events, skipped = list(self._waiting), self.skipped
        self._waiting.clear()
        self.skipped = 0
        self._arrived.clear()
        return events, skipped

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
    _decoder: Any = field(default_factory=lambda: msgspec.json.Decoder(LiveEvent))

    async def join(self, matches: Callable[[LiveEvent], bool]) -> Watcher:
        """Add a watcher. Raises `OverloadedError` if there are too many."""
        if len(self._watchers) >= MAX_WATCHERS:
            raise OverloadedError("Too many people watch calls at this replica. Retry later.")
        watcher = Watcher(matches)
        self._watchers.add(watcher)
        await self._follow()
        return watcher

    async def leave(self, watcher: Watcher) -> None:
        """Remove a watcher."""
        self._watchers.discard(watcher)
        await self._follow()

    def close(self) -> None:
        """End the streams of all watchers."""
        for watcher in self._watchers:
            watcher.close()

    async def _follow(self) -> None:
        """Subscribe for the first watcher, and unsubscribe after the last one."""
        async with self._changing:
            if self._watchers and not self._subscriptions:
                for event in _WATCHED:
                    subject = subject_of(event.NAME, "*")
                    self._subscriptions.append(await self.bus.subscribe(subject, self._receive))
            elif not self._watchers:
                while self._subscriptions:
                    await self._subscriptions.pop().stop()

    def _receive(self, data: bytes, subject: str, *_: Any) -> None:
        name, customer = parse_subject(subject)
        for line in data.splitlines():
            try:
                event = self._decoder.decode(line)
            except msgspec.MsgspecError:
                continue
            event.event, event.customer = name, customer
            for watcher in self._watchers:
                watcher.add(event)
