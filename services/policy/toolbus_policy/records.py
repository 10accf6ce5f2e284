"""A reservation's record in Redis: `state|second|amount|counters|about`. Pure."""

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import NamedTuple

import msgspec

from toolbus_policy.limits import BudgetLimit

_BARS = 4
_encode = msgspec.json.Encoder().encode


class About(NamedTuple):
    """What the reaper must know of a call to say what became of it."""

    server: str
    tool: str
    key: str
    trace: str
    parent: str

    def encode(self) -> str:
        """As it is written: names are an upstream's, so nothing may be taken for a border."""
        return _encode(self).decode()

    @classmethod
    def decode(cls, text: str) -> "About":
        """Read what was written."""
        return cls(*msgspec.json.decode(text, type=tuple[str, str, str, str, str]))


@dataclass(frozen=True, slots=True)
class Record:
    """One reservation. States: h held, d dispatched, u charged as unknown."""

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
