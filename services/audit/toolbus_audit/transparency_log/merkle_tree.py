"""A Merkle tree that only grows (RFC 6962, section 2.1), held by its right edge alone."""

from collections.abc import Iterable
from hashlib import sha256

EMPTY = sha256(b"").digest()


class Tree:
    """`size` leaves; `edge` has the roots of the perfect trees they make up, the largest first."""

    def __init__(self, size: int = 0, edge: Iterable[bytes] = ()) -> None:
        self.size = size
        self.edge = list(edge)

    def append(self, leaf: bytes) -> None:
        """Add one leaf: the bytes of an event as its producer wrote them."""
        node = sha256(b"\x00" + leaf).digest()
        # Two perfect trees of one height make one of the next: as a binary counter carries.
        carries = self.size
        while carries & 1:
            node = sha256(b"\x01" + self.edge.pop() + node).digest()
            carries >>= 1
        self.edge.append(node)
        self.size += 1

    @property
    def root(self) -> bytes:
        """The tree's hash, 32 bytes."""
        if not self.edge:
            return EMPTY
        root = self.edge[-1]
        for node in reversed(self.edge[:-1]):
            root = sha256(b"\x01" + node + root).digest()
        return root
