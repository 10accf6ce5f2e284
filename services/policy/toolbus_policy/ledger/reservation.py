"""A reservation's record in Redis: `state|second|amount|counters|about`. Pure."""

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import NamedTuple

import msgspec

from toolbus_policy.ledger.limits import BudgetLimit

_BARS = 4
_encode = msgspec.json.Encoder().encode


class About(NamedTuple):
    """What the sweeper must know of a call to say what became of it.

    `after` is a message of the stream that was there before the reservation was made: the call's
    intent, if there is one, has a higher number.
    """

    server: str
    tool: str
    key: str
    trace: str
    parent: str
    after: int = 0

    def encode(self) -> str:
        """As it is written: names are an upstream's, so nothing may be taken for a border."""
        return _encode(self).decode()

    @classmethod
    def decode(cls, text: str) -> "About":
        """Read what was written."""
        return _decode(text)


_decode = msgspec.json.Decoder(About).decode


@dataclass(frozen=True, slots=True)
class Record:
    """One reservation. States: d open, perhaps handed over; u charged as unknown."""

    state: str
    at: int
    amount: int
    counters: str
    about: str

    def encode(self) -> str:
        """As the scripts read it."""
        return "|".join(map(str, astuple(self)))

    @classmethod
    def decode(cls, text: str) -> "Record":
        """As the scripts wrote it."""
        state, at, amount, counters, about = text.split("|", _BARS)
        return cls(state, int(at), int(amount), counters, about)


def counters_of(limits: Iterable[BudgetLimit]) -> str:
    """The counters a reservation is held in, as a record names them."""
    return ",".join(("$" if limit.in_money else "#") + limit.counter for limit in limits)
