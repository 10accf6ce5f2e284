"""Choice of the replica for a call: weighted round robin, or a fixed replica per caller."""

import hashlib
import math
from collections.abc import Sequence
from typing import Protocol, TypeVar

FEW = 4  # calls that do not count as an overload
_BYTES = 6  # bytes of a hash, so that a float represents it exactly


class Weighted(Protocol):
    """A replica that can be chosen for a call."""

    label: str
    weight: int
    credit: int  # state of `next_in_turn`
    in_progress: int  # calls in progress


W = TypeVar("W", bound=Weighted)


def next_in_turn(able: Sequence[W]) -> W:
    """Return the next replica in smooth weighted round robin."""
    for each in able:
        each.credit += each.weight
    chosen = max(able, key=_credit)
    chosen.credit -= sum(each.weight for each in able)
    return chosen


def uncrowded(able: Sequence[W]) -> Sequence[W]:
    """Return the replicas that are not overloaded.

    A replica is overloaded if it has more than `2 * least * weight + FEW` calls in progress.
    `least` is the smallest number of calls per unit of weight of any replica. Therefore a replica
    that does not reply cannot use all slots.
    """
    least = min(each.in_progress / each.weight for each in able)
    return [each for each in able if each.in_progress <= 2 * least * each.weight + FEW]


def home_of(caller: str, able: Sequence[W]) -> W:
    """Return the fixed replica of a caller, by weighted rendezvous hashing.

    Every executor chooses the same replica without coordination. If a replica is added or removed,
    only the callers of this replica change.
    """
    return max(able, key=lambda each: _score(caller, each))


def _credit(each: Weighted) -> int:
    return each.credit


def _score(caller: str, each: Weighted) -> float:
    identity = f"{each.label}\n{caller}".encode()
    number = int.from_bytes(hashlib.blake2b(identity, digest_size=_BYTES).digest(), "big")
    return -each.weight / math.log((number + 0.5) / (1 << 8 * _BYTES))
