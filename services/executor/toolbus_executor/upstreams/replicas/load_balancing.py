"""Choose the replica for a call: weighted round robin, or a fixed replica per caller. Pure."""

import hashlib
import math
from collections.abc import Sequence
from typing import Protocol, TypeVar

FEW = 4  # calls
_BYTES = 6  # of a hash; few enough for an exact float


class Weighted(Protocol):
    """A candidate for a call."""

    label: str
    weight: int
    credit: int  # saved turns, maintained by `next_in_turn`
    in_progress: int  # calls in progress


W = TypeVar("W", bound=Weighted)


def next_in_turn(able: Sequence[W]) -> W:
    """Return the next replica by smooth weighted round robin."""
    for each in able:
        each.credit += each.weight
    chosen = max(able, key=_credit)
    chosen.credit -= sum(each.weight for each in able)
    return chosen


def uncrowded(able: Sequence[W]) -> Sequence[W]:
    """Return the replicas that are not overloaded, so that one that hangs does not use all slots.

    A replica is overloaded if it has more than `FEW` running calls above twice the minimum, both
    relative to its weight.
    """
    least = min(each.in_progress / each.weight for each in able)
    return [each for each in able if each.in_progress <= 2 * least * each.weight + FEW]


def home_of(caller: str, able: Sequence[W]) -> W:
    """Return the replica of a caller. If a replica is added or removed, only its callers move.

    This is weighted rendezvous hashing, so that every executor chooses the same replica without
    coordination.
    """
    return max(able, key=lambda each: _score(caller, each))


def _credit(each: Weighted) -> int:
    return each.credit


def _score(caller: str, each: Weighted) -> float:
    identity = f"{each.label}\n{caller}".encode()
    number = int.from_bytes(hashlib.blake2b(identity, digest_size=_BYTES).digest(), "big")
    return -each.weight / math.log((number + 0.5) / (1 << 8 * _BYTES))
