"""Records of reservations in Redis: `state|second|amount|counters|about` (no I/O)."""

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import NamedTuple

import msgspec

from toolbus_policy.ledger.limits import BudgetLimit

_BARS = 4
_encode = msgspec.json.Encoder().encode


class CallContext(NamedTuple):
    """The data about a call that the sweeper needs to publish its outcome.

    `after` is a stream message older than the reservation. If the call has an intent, the intent
    has a higher sequence number.
    """

    server: str
    tool: str
    key: str
    trace: str
    parent: str
    after: int = 0

    def encode(self) -> str:
        """Return JSON, because names come from upstream servers and may contain any separator."""
        return _encode(self).decode()

    @classmethod
    def decode(cls, text: str) -> "CallContext":
        """Parse the result of `encode`."""
        return _decode(text)


_decode = msgspec.json.Decoder(CallContext).decode


@dataclass(frozen=True, slots=True)
class ReservationRecord:
    """One reservation. State `d` is open, perhaps dispatched; state `u` is charged as unknown."""

    state: str
    at: int
    amount: int
    counters: str
    about: str

    def encode(self) -> str:
        """Return the form that the scripts parse."""
        return "|".join(map(str, astuple(self)))

    @classmethod
    def decode(cls, text: str) -> "ReservationRecord":
        """Parse the form that the scripts write."""
        state, at, amount, counters, about = text.split("|", _BARS)
        return cls(state, int(at), int(amount), counters, about)


def counters_of(limits: Iterable[BudgetLimit]) -> str:
    """Return the counters of a reservation as its record names them."""
    return ",".join(("$" if limit.in_money else "#") + limit.counter for limit in limits)
