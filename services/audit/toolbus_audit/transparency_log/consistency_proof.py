"""Consistency proofs between two sizes of a log (RFC 6962, section 2.1.2), by its edges alone."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256


@dataclass(slots=True)
class Growth:
    """A log from `size` events on: the edge it had then, and the perfect trees that came since.

    The perfect trees lie side by side and each begins where its height permits, so there are never
    more than two of a height, however many events came.
    """

    size: int
    edge: list[bytes]
    since: list[tuple[int, bytes]] = field(default_factory=list)  # how many events, and their hash

    @property
    def reach(self) -> int:
        """How many events the log has now."""
        return self.size + sum(count for count, _ in self.since)

    def append(self, leaf: bytes) -> None:
        """Add one event: its bytes as its producer wrote them."""
        count, node = 1, sha256(b"\x00" + leaf).digest()
        start = self.reach
        while self.since and self.since[-1][0] == count and (start - count) % (2 * count) == 0:
            start -= count
            node = sha256(b"\x01" + self.since.pop()[1] + node).digest()
            count *= 2
        self.since.append((count, node))

    def proof(self) -> list[bytes]:
        """That the log now goes on from what it was; empty where it did not grow."""
        if self.reach == self.size or not self.size:
            return []
        nodes = dict(self._nodes())
        return list(_proof(self.size, 0, self.reach, nodes, whole=True))

    def _nodes(self) -> Iterable[tuple[tuple[int, int], bytes]]:
        start, left = 0, self.size
        for node in self.edge:
            count = 1 << (left.bit_length() - 1)
            yield (start, start + count), node
            start, left = start + count, left - count
        for count, node in self.since:
            yield (start, start + count), node
            start += count


Nodes = dict[tuple[int, int], bytes]


def _proof(old: int, start: int, end: int, nodes: Nodes, *, whole: bool) -> Iterable[bytes]:
    """SUBPROOF of the specification, over the events from `start` to `end`."""
    if old == end:
        if not whole:
            yield _hash(start, end, nodes)
        return
    middle = _middle(start, end)
    if old <= middle:
        yield from _proof(old, start, middle, nodes, whole=whole)
        yield _hash(middle, end, nodes)
    else:
        yield from _proof(old, middle, end, nodes, whole=False)
        yield _hash(start, middle, nodes)


def _hash(start: int, end: int, nodes: Nodes) -> bytes:
    known = nodes.get((start, end))
    if known is not None:
        return known
    middle = _middle(start, end)
    return sha256(b"\x01" + _hash(start, middle, nodes) + _hash(middle, end, nodes)).digest()


def _middle(start: int, end: int) -> int:
    """Where the tree over these events parts: behind the largest power of two below their count."""
    return start + (1 << (end - start - 1).bit_length() - 1)
