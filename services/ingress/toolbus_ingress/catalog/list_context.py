"""The size of lists in models' contexts, counted in bytes per key and published once a period.

Each list only increments a counter. The sizes for comparison, of all definitions the key may use
and of all existing definitions, are computed per key at the end of the period.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from secrets import token_hex
from time import time

from toolbus_common.access.config_snapshot import ConfigView
from toolbus_common.access.principal import EffectiveGrants
from toolbus_common.contracts import ContextListed, Event, ProtocolFamily
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.messaging.periodic_publisher import PeriodicPublisher
from toolbus_ingress.auth.request_context import Caller
from toolbus_ingress.catalog.tool_catalog import Catalogue

MAX_COUNTERS = 1000  # different keys and lists counted in one period
OTHERS = "(others)"
_EVERYTHING = EffectiveGrants((("*",),))

# The key's name, the method, the server of the endpoint, the mode, the protocol family.
CounterKey = tuple[str, str, str, str, ProtocolFamily]


@dataclass(slots=True)
class _Counter:
    lists: int = 0
    sent: int = 0


class ListSizeCounter:
    """Counts the bytes of lists by key. `seconds` is the length of a period."""

    def __init__(
        self,
        publish: Callable[[Event], None],
        catalogue: Catalogue,
        directory: ConfigView,
        seconds: float,
    ) -> None:
        self._catalogue = catalogue
        self._directory = directory
        self._counters: dict[CounterKey, _Counter] = {}
        self.publisher = PeriodicPublisher(publish, self._take, self._event, seconds)

    def note(self, caller: Caller, method: str, family: ProtocolFamily, size: int) -> None:
        """Count one list that was sent; `size` is in bytes."""
        key = (caller.name, method, caller.server, str(caller.mode), family)
        counter = self._counters.get(key)
        if counter is None:
            if len(self._counters) >= MAX_COUNTERS:
                key = (OTHERS, method, "", "", family)
            counter = self._counters.setdefault(key, _Counter())
        counter.lists += 1
        counter.sent += size

    def _take(self) -> Iterable[tuple[CounterKey, _Counter]]:
        counters, self._counters = self._counters, {}
        return counters.items()

    def _event(self, item: tuple[CounterKey, _Counter]) -> ContextListed:
        counter_key, counter = item
        key, method, server, mode, family = counter_key
        found = self._directory.now.principal_of(key, time())
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
            * self._catalogue.definitions_size(method, grants, server, family),
            whole_bytes=counter.lists
            * self._catalogue.definitions_size(method, _EVERYTHING, server, family),
        )
