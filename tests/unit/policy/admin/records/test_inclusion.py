"""Proofs of inclusion agree with the log's own tree, and fail if anything is changed."""

from itertools import pairwise

import pytest

from toolbus_audit.transparency_log.merkle_tree import MerkleTree
from toolbus_policy.admin.records.inclusion import Tree, leaf_hash, root_of

LINES = [b"event %d" % number for number in range(70)]


def tree_of(size: int) -> MerkleTree:
    tree = MerkleTree()
    for line in LINES[:size]:
        tree.append(line)
    return tree


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8, 13, 31, 32, 33, 70])
def test_every_event_after_every_earlier_checkpoint_is_proven(size: int) -> None:
    root = tree_of(size).root
    for first in range(size):
        leaves = [leaf_hash(line) for line in LINES[first:size]]
        tree = Tree(first, tree_of(first).right_edge, leaves)
        assert (tree.size, tree.root()) == (size, root)
        for index in range(first, size):
            assert root_of(leaf_hash(LINES[index]), index, size, tree.path(index)) == root


def test_a_changed_event_place_or_hash_leads_to_another_root() -> None:
    leaves = [leaf_hash(line) for line in LINES[40:70]]
    tree = Tree(40, tree_of(40).right_edge, leaves)
    path, root = tree.path(50), tree.root()
    assert root_of(leaf_hash(b"other"), 50, 70, path) != root
    assert root_of(leaf_hash(LINES[50]), 51, 70, path) != root
    for at in range(len(path)):
        changed = [*path[:at], bytes(32), *path[at + 1 :]]
        assert root_of(leaf_hash(LINES[50]), 50, 70, changed) != root


@pytest.mark.parametrize(("index", "size", "length"), [(0, 0, 0), (5, 5, 3), (-1, 5, 3), (0, 5, 2)])
def test_a_proof_of_another_place_is_an_error(index: int, size: int, length: int) -> None:
    with pytest.raises(ValueError, match="does not belong"):
        root_of(bytes(32), index, size, [bytes(32)] * length)


def test_the_path_is_as_long_as_the_tree_is_high() -> None:
    for smaller, larger in pairwise((1, 2, 4, 8, 16, 32, 64)):
        tree = Tree(0, [], [leaf_hash(line) for line in LINES[:larger]])
        assert len(tree.path(smaller)) == larger.bit_length() - 1
