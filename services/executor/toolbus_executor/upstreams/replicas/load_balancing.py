"""Which replica takes a call: by weight in turns, or always the same for one caller. Pure."""

import hashlib
import math
from collections.abc import Sequence
from typing import Protocol, TypeVar

FEW = 4  # calls
_BYTES = 6  # of a hash: so few that a number made of it is exact


class Weighted(Protocol):
    """What is chosen from."""

    label: str
    weight: int
    credit: int  # what it has saved up of turns; the chooser's own
    under_way: int  # calls it has not answered yet


W = TypeVar("W", bound=Weighted)


def next_in_turn(able: Sequence[W]) -> W:
    """The one whose turn it is: in every round each gets as many as it weighs, spread out."""
    for each in able:
        each.credit += each.weight
    chosen = max(able, key=_credit)
    chosen.credit -= sum(each.weight for each in able)
    return chosen


def uncrowded(able: Sequence[W]) -> Sequence[W]:
    """Those that keep pace: one that hangs must not fill the server's places until that is known.

    Twice as many calls under way for its weight as the least has, and a few, are no crowd.
    """
    least = min(each.under_way / each.weight for each in able)
    return [each for each in able if each.under_way <= 2 * least * each.weight + FEW]


def home_of(caller: str, able: Sequence[W]) -> W:
    """The one a caller stays with: when another goes or comes, only those who must move do.

    Weighted rendezvous hashing, so every executor finds the same one without asking the others.
    """
    return max(able, key=lambda each: _score(caller, each))


def _credit(each: Weighted) -> int:
    return each.credit


def _score(caller: str, each: Weighted) -> float:
    told = f"{each.label}\n{caller}".encode()
    number = int.from_bytes(hashlib.blake2b(told, digest_size=_BYTES).digest(), "big")
    return -each.weight / math.log((number + 0.5) / (1 << 8 * _BYTES))
