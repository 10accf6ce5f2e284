"""Append-only Merkle tree (RFC 6962, section 2.1), represented by its right edge."""

from collections.abc import Iterable
from hashlib import sha256

EMPTY = sha256(b"").digest()


class MerkleTree:
    """Tree of `size` leaves; `right_edge` has the roots of its perfect subtrees, largest first."""

    def __init__(self, size: int = 0, right_edge: Iterable[bytes] = ()) -> None:
        self.size = size
        self.right_edge = list(right_edge)

    def append(self, leaf: bytes) -> None:
        """Add one leaf: an event as its producer published it."""
        node = sha256(b"\x00" + leaf).digest()
        # Two perfect subtrees of the same height merge, as carries do in a binary counter.
        carries = self.size
        while carries & 1:
            node = sha256(b"\x01" + self.right_edge.pop() + node).digest()
            carries >>= 1
        self.right_edge.append(node)
        self.size += 1

    @property
    def root(self) -> bytes:
        """Hash of the tree, 32 bytes."""
        if not self.right_edge:
            return EMPTY
        root = self.right_edge[-1]
        for node in reversed(self.right_edge[:-1]):
            root = sha256(b"\x01" + node + root).digest()
        return root
