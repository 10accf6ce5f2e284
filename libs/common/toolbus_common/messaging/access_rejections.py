"""Rejected credentials as events: counted per client address and reason, written once a minute.

Whoever floods an entrance costs a counter each time and neither a message nor memory: so many
addresses are told apart in a period, what more there are is counted together.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from secrets import token_hex
from time import time

from toolbus_common.concurrency import end
from toolbus_common.contracts import AccessRejected, Event
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.observability.metrics import REJECTED_ACCESS

SECONDS = 60.0
MOST_APART = 128  # addresses and reasons that are told apart in one period
_MANY = ""
_NET_OF_A_CLIENT = 64  # bits: an IPv6 client chooses the others as it likes


@dataclass(slots=True)
class _Counted:
    first: float
    last: float
    count: int = 0


@dataclass(slots=True)
class RejectionCounter:
    """Counts what is rejected. `entrance` and `code` are words of ours, never a client's."""

    say: Callable[[Event], None]
    seconds: float = SECONDS
    _counted: dict[tuple[str, str, str], _Counted] = field(default_factory=dict)

    def note(self, entrance: str, code: str, address: str) -> None:
        """Count one rejected request."""
        REJECTED_ACCESS.labels(entrance, code).inc()
        kind = (entrance, code, _grouped(address))
        if kind not in self._counted and len(self._counted) >= MOST_APART:
            kind = (entrance, code, _MANY)
        now = time()
        counted = self._counted.setdefault(kind, _Counted(now, now))
        counted.count += 1
        counted.last = now

    def flush(self) -> None:
        """Write what was counted, and begin the next period."""
        counted, self._counted = self._counted, {}
        for (entrance, code, address), each in counted.items():
            self.say(_event(entrance, code, address, each))

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
            self.flush()


def _event(entrance: str, code: str, address: str, counted: _Counted) -> AccessRejected:
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
        reason=f"{times} at {entrance} from {address or 'addresses that are not told apart'}",
    )


def _grouped(address: str) -> str:
    """Return the address by which a client is told apart; nothing for what is none."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return _MANY
    if not isinstance(found, IPv6Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    bits = 128 - _NET_OF_A_CLIENT
    return f"{IPv6Address(int(found) >> bits << bits)}/{_NET_OF_A_CLIENT}"
