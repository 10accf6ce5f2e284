"""Proofs that an event is in a signed log (RFC 6962, section 2.1.1) (no I/O).

The perfect subtrees of an earlier checkpoint stand for all events before it, so a proof needs only
the hashes of the events between two checkpoints.
"""

from collections.abc import Sequence
from hashlib import sha256

from toolbus_common.evidence.verify import Checkpoint


class Tree:
    """A tree of `size` leaves: the perfect subtrees before `first`, and the leaves from it."""

    def __init__(self, first: int, edge: Sequence[bytes], leaves: Sequence[bytes]) -> None:
        self.size = first + len(leaves)
        self._first = first
        self._leaves = leaves
        self._known: dict[tuple[int, int], bytes] = {}
        start = 0
        for height in reversed(range(first.bit_length())):
            if first >> height & 1:
                self._known[start, start + (1 << height)] = edge[len(self._known)]
                start += 1 << height

    def root(self) -> bytes:
        """Return the hash of the whole tree."""
        return self._hash(0, self.size)

    def path(self, index: int) -> list[bytes]:
        """Return the inclusion proof of a leaf at or after `first`: hashes, from the leaf up."""
        found, start, end = list[bytes](), 0, self.size
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                found.append(self._hash(middle, end))
                end = middle
            else:
                found.append(self._hash(start, middle))
                start = middle
        return found[::-1]

    def _hash(self, start: int, end: int) -> bytes:
        known = self._known.get((start, end))
        if known is None:
            if end - start == 1:
                return self._leaves[start - self._first]
            middle = start + _split(end - start)
            known = _node(self._hash(start, middle), self._hash(middle, end))
            self._known[start, end] = known
        return known


def leaf_hash(line: bytes) -> bytes:
    """Return the hash of an event's bytes."""
    return sha256(b"\x00" + line).digest()


def root_of(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """Return the root that a proof leads to. Raises `ValueError` for a proof of wrong length."""
    sides = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        sides.append(index < middle)
        start, end = (start, middle) if index < middle else (middle, end)
    if not 0 <= index < size or len(sides) != len(path):
        raise ValueError("the proof does not belong to this place in the tree")
    found = leaf
    for is_left, other in zip(reversed(sides), path, strict=True):
        found = _node(found, other) if is_left else _node(other, found)
    return found


def proves(leaf: bytes, index: int, path: Sequence[bytes], checkpoint: Checkpoint) -> bool:
    """Return whether a signed checkpoint contains this leaf at this index."""
    try:
        root = root_of(leaf, index, checkpoint.size, path)
    except ValueError:
        return False
    return checkpoint.is_signed and root == checkpoint.root


def _split(size: int) -> int:
    """Return the largest power of two below a size."""
    return 1 << (size - 1).bit_length() - 1


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()
