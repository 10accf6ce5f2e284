"""The context that lists take up for each key: counted in bytes, published once a period.

A list only adds to a counter. The sizes it is compared with, all definitions the key may use and
all there are, are computed when the period ends, key by key.
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

MOST_COUNTERS = 1000  # different keys and lists counted in one period
OTHERS = "(others)"
_EVERYTHING = EffectiveGrants((("*",),))

# The key's name, the method, the server of the endpoint, the mode, the protocol family.
CounterKey = tuple[str, str, str, str, ProtocolFamily]


@dataclass(slots=True)
class _Counter:
    lists: int = 0
    sent: int = 0


@dataclass(slots=True)
class ListSizeCounter:
    """Counts the bytes of lists by key. `seconds` is the length of a period."""

    publish: Callable[[Event], None]
    catalogue: Catalogue
    directory: ConfigProjection
    seconds: float
    _counters: dict[CounterKey, _Counter] = field(default_factory=dict)

    def note(self, caller: Caller, method: str, family: ProtocolFamily, size: int) -> None:
        """Count one list that was sent; `size` is in bytes."""
        key = (caller.name, method, caller.server, str(caller.mode), family)
        counter = self._counters.get(key)
        if counter is None:
            if len(self._counters) >= MOST_COUNTERS:
                key = (OTHERS, method, "", "", family)
            counter = self._counters.setdefault(key, _Counter())
        counter.lists += 1
        counter.sent += size

    def flush(self) -> None:
        """Publish the counters, and start the next period."""
        for event in self._events():
            self.publish(event)

    @asynccontextmanager
    async def written(self) -> AsyncIterator[None]:
        """Publish at the end of each period, while this context is entered."""
        publishing = asyncio.create_task(self._publish_periodically())
        try:
            yield
        finally:
            await end(publishing)

    async def _publish_periodically(self) -> None:
        while True:
            await asyncio.sleep(self.seconds)
            for event in self._events():
                self.publish(event)
                await asyncio.sleep(0)  # let calls run between two keys

    def _events(self) -> Iterator[ContextListed]:
        counters, self._counters = self._counters, {}
        for key, counter in counters.items():
            yield self._event(key, counter)

    def _event(self, counter_key: CounterKey, counter: _Counter) -> ContextListed:
        key, method, server, mode, family = counter_key
        found = self.directory.now.principal_of(key, time())
        grants = found.seen if found is not None else EffectiveGrants(())
        return ContextListed(
            id=f"{token_hex(12)}.listed",
            at=time(),
            customer=found.customer if found is not None else DEFAULT_CUSTOMER,
            key=key,
            server=server,
            method=method,
            mode=mode,
            lists=counter.lists,
            spent_bytes=counter.sent,
            classic_bytes=counter.lists
            * self.catalogue.definitions_size(method, grants, server, family),
            whole_bytes=counter.lists
            * self.catalogue.definitions_size(method, _EVERYTHING, server, family),
        )
