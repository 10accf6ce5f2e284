"""Consistency proofs between two sizes of a log (RFC 6962, 2.1.2), made of its right edges."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256


@dataclass(slots=True)
class LogGrowth:
    """Growth of a log since it had `size` events: its right edge at that size, and added subtrees.

    The added perfect subtrees are adjacent, and each starts at a multiple of its size. Therefore
    at most two subtrees have the same height, independent of the number of events.
    """

    size: int
    right_edge: list[bytes]
    added_trees: list[tuple[int, bytes]] = field(default_factory=list)  # number of events, hash

    @property
    def current_size(self) -> int:
        """Number of events in the log now."""
        return self.size + sum(count for count, _ in self.added_trees)

    def append(self, leaf: bytes) -> None:
        """Add one event. `leaf` is the event as its producer published it."""
        count, node = 1, sha256(b"\x00" + leaf).digest()
        start = self.current_size
        while (
            self.added_trees
            and self.added_trees[-1][0] == count
            and (start - count) % (2 * count) == 0
        ):
            start -= count
            node = sha256(b"\x01" + self.added_trees.pop()[1] + node).digest()
            count *= 2
        self.added_trees.append((count, node))

    def proof(self) -> list[bytes]:
        """Return the proof that the log extends its earlier state; empty if it did not grow."""
        if self.current_size == self.size or not self.size:
            return []
        nodes = dict(self._nodes())
        return list(_subproof(self.size, 0, self.current_size, nodes, whole=True))

    def _nodes(self) -> Iterable[tuple[tuple[int, int], bytes]]:
        start, left = 0, self.size
        for node in self.right_edge:
            count = 1 << (left.bit_length() - 1)
            yield (start, start + count), node
            start, left = start + count, left - count
        for count, node in self.added_trees:
            yield (start, start + count), node
            start += count


Nodes = dict[tuple[int, int], bytes]


def _subproof(old: int, start: int, end: int, nodes: Nodes, *, whole: bool) -> Iterable[bytes]:
    """Yield SUBPROOF of RFC 6962, section 2.1.2, over the events from `start` to `end`."""
    if old == end:
        if not whole:
            yield _hash(start, end, nodes)
        return
    middle = _split_point(start, end)
    if old <= middle:
        yield from _subproof(old, start, middle, nodes, whole=whole)
        yield _hash(middle, end, nodes)
    else:
        yield from _subproof(old, middle, end, nodes, whole=False)
        yield _hash(start, middle, nodes)


def _hash(start: int, end: int, nodes: Nodes) -> bytes:
    known = nodes.get((start, end))
    if known is not None:
        return known
    middle = _split_point(start, end)
    return sha256(b"\x01" + _hash(start, middle, nodes) + _hash(middle, end, nodes)).digest()


def _split_point(start: int, end: int) -> int:
    """Return the split of the tree over these events: the largest power of two below the size."""
    return start + (1 << (end - start - 1).bit_length() - 1)
