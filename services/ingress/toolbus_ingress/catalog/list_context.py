"""What lists cost each key's context: counted by bytes, written as events once a period.

A list adds to a counter and to nothing else. What it is compared with, the definitions of all that
the key may use and of all there is, is added up when the period ends, key by key.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from secrets import token_hex
from time import time

from toolbus_common.access.config_snapshot import ConfigProjection
from toolbus_common.access.principal import EffectiveGrants
from toolbus_common.contracts import ContextListed, Event, ProtocolFamily
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.messaging.periodic_publisher import PeriodicPublisher
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


class ListedContext:
    """Counts the bytes of lists by key."""

    def __init__(
        self,
        publish: Callable[[Event], None],
        catalogue: Catalogue,
        directory: ConfigProjection,
        seconds: float,
    ) -> None:
        self._catalogue = catalogue
        self._directory = directory
        self._counted: dict[Kind, _Counted] = {}
        self.publisher = PeriodicPublisher(publish, self._take, self._event, seconds)

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

    def _take(self) -> Iterable[tuple[Kind, _Counted]]:
        counted, self._counted = self._counted, {}
        return counted.items()

    def _event(self, item: tuple[Kind, _Counted]) -> ContextListed:
        kind, counted = item
        key, method, server, mode, family = kind
        found = self._directory.now.principal_of(key, time())
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
            classic_bytes=counted.lists * self._catalogue.weight(method, bounds, server, family),
            whole_bytes=counted.lists * self._catalogue.weight(method, _EVERYTHING, server, family),
        )
