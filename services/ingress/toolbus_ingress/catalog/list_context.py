"""What lists cost each key's context: counted by bytes, written as events once a period.

A list adds to a counter and to nothing else. What it is compared with, the definitions of all that
the key may use and of all there is, is added up when the period ends, key by key.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from secrets import token_hex
from time import time

from toolbus_common.access.config_snapshot import ConfigProjection
from toolbus_common.access.principal import EffectiveGrants
from toolbus_common.concurrency import end
from toolbus_common.contracts import ContextListed, Event, ProtocolFamily
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_ingress.auth.request_context import Caller
from toolbus_ingress.catalog.tool_catalog import Catalogue

MOST_APART = 1000  # keys and lists that are told apart in one period
OTHERS = "(others)"
_EVERYTHING = EffectiveGrants((("*",),))

# Whose list: the key, the method, the server of the endpoint, the mode, the protocol family.
Kind = tuple[str, str, str, str, ProtocolFamily]


@dataclass(slots=True)
class _Counted:
    lists: int = 0
    sent: int = 0


@dataclass(slots=True)
class ListedContext:
    """Counts the bytes of lists by key."""

    say: Callable[[Event], None]
    catalogue: Catalogue
    directory: ConfigProjection
    seconds: float
    _counted: dict[Kind, _Counted] = field(default_factory=dict)

    def note(self, caller: Caller, method: str, family: ProtocolFamily, size: int) -> None:
        """Count one list that was sent."""
        kind = (caller.name, method, caller.server, str(caller.mode), family)
        counted = self._counted.get(kind)
        if counted is None:
            if len(self._counted) >= MOST_APART:
                kind = (OTHERS, method, "", "", family)
            counted = self._counted.setdefault(kind, _Counted())
        counted.lists += 1
        counted.sent += size

    def flush(self) -> None:
        """Write what was counted, and begin the next period."""
        for event in self._events():
            self.say(event)

    @asynccontextmanager
    async def written(self) -> AsyncIterator[None]:
        """Write at the end of each period, while this is entered."""
        writing = asyncio.create_task(self._write())
        try:
            yield
        finally:
            await end(writing)

    async def _write(self) -> None:
        while True:
            await asyncio.sleep(self.seconds)
            for event in self._events():
                self.say(event)
                await asyncio.sleep(0)  # calls go on between two keys

    def _events(self) -> Iterator[ContextListed]:
        counted, self._counted = self._counted, {}
        for kind, each in counted.items():
            yield self._event(kind, each)

    def _event(self, kind: Kind, counted: _Counted) -> ContextListed:
        key, method, server, mode, family = kind
        found = self.directory.now.principal_of(key, time())
        bounds = found.seen if found is not None else EffectiveGrants(())
        return ContextListed(
            id=f"{token_hex(12)}.listed",
            at=time(),
            customer=found.customer if found is not None else DEFAULT_CUSTOMER,
            key=key,
            server=server,
            method=method,
            mode=mode,
            lists=counted.lists,
            spent_bytes=counted.sent,
            classic_bytes=counted.lists * self.catalogue.weight(method, bounds, server, family),
            whole_bytes=counted.lists * self.catalogue.weight(method, _EVERYTHING, server, family),
        )
