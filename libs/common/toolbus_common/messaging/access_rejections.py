"""Counter of rejected credentials by client address and reason. It is published once a minute.

A rejected request costs only an increment: it is not published separately and uses no memory. In
one period, at most `MAX_KINDS` pairs of address and reason are counted separately. All further
pairs are counted together.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from secrets import token_hex
from time import time

from toolbus_common.contracts import AccessRejected, Event
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.messaging.periodic_publisher import PeriodicPublisher
from toolbus_common.observability.metrics import REJECTED_ACCESS

SECONDS = 60.0
MAX_KINDS = 128  # pairs of address and reason that are counted separately in one period
_MANY = ""
_IPV6_PREFIX = 64  # bits, because an IPv6 client can choose the other bits

_Kind = tuple[str, str, str]  # entrance, code, address


@dataclass(slots=True)
class _Counted:
    first: float
    last: float
    count: int = 0


class RejectionCounter:
    """Counter of rejected requests by entrance, error code and client address."""

    def __init__(self, publish: Callable[[Event], None], seconds: float = SECONDS) -> None:
        self._counted: dict[_Kind, _Counted] = {}
        self.publisher = PeriodicPublisher(publish, self._take, _event, seconds)

    def note(self, entrance: str, code: str, address: str) -> None:
        """Count one rejected request.

        `entrance` and `code` must be constants of Toolbus, never text of a client.
        """
        REJECTED_ACCESS.labels(entrance, code).inc()
        kind = (entrance, code, _grouped(address))
        if kind not in self._counted and len(self._counted) >= MAX_KINDS:
            kind = (entrance, code, _MANY)
        now = time()
        counted = self._counted.setdefault(kind, _Counted(now, now))
        counted.count += 1
        counted.last = now

    def _take(self) -> Iterable[tuple[_Kind, _Counted]]:
        counted, self._counted = self._counted, {}
        return counted.items()


def _event(item: tuple[_Kind, _Counted]) -> AccessRejected:
    (entrance, code, address), counted = item
    times = "once" if counted.count == 1 else f"{counted.count} times"
    return AccessRejected(
        id=f"{token_hex(12)}.rejected",
        at=counted.last,
        customer=DEFAULT_CUSTOMER,
        entrance=entrance,
        code=code,
        address=address,
        count=counted.count,
        since=counted.first,
        reason=f"{times} at {entrance} from {address or 'other addresses, counted together'}",
    )


def _grouped(address: str) -> str:
    """Return the address under which a client is counted; empty without an IP address."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return _MANY
    if not isinstance(found, IPv6Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    bits = 128 - _IPV6_PREFIX
    return f"{IPv6Address(int(found) >> bits << bits)}/{_IPV6_PREFIX}"
