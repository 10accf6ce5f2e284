"""Merkle tree, checkpoints and consistency proofs against their specifications."""

from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.audit.witness import consistent
from toolbus_audit.transparency_log.checkpoint import Checkpoint, load_signer
from toolbus_audit.transparency_log.consistency_proof import LogGrowth
from toolbus_audit.transparency_log.merkle_tree import MerkleTree
from toolbus_common.evidence import verify

CHECKPOINT = Checkpoint("toolbus/acme/17", 3, b"r" * 32, 1_800_000_000, 1, b"q" * 32)
# RFC 8032, section 7.1: public key, message, signature.
VECTORS = (
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e"
            "39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67"
            "f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
)


def hash_of(leaves: list[bytes]) -> bytes:
    """Compute the tree hash as defined in RFC 6962, section 2.1."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return sha256(b"\x01" + hash_of(leaves[:half]) + hash_of(leaves[half:])).digest()


@given(st.lists(st.binary(max_size=9), max_size=70))
def test_a_growing_tree_has_the_hashes_of_the_specification(leaves: list[bytes]) -> None:
    tree = MerkleTree()
    for leaf in leaves:
        tree.append(leaf)
    assert (tree.size, tree.root) == (len(leaves), hash_of(leaves))


@given(st.lists(st.binary(max_size=3), min_size=1, max_size=70), st.data())
def test_a_tree_continues_from_its_stored_edge(leaves: list[bytes], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(leaves)))
    first = MerkleTree()
    for leaf in leaves[:cut]:
        first.append(leaf)
    second = MerkleTree(first.size, first.right_edge)
    third = verify.Tree(first.size, list(first.right_edge))
    for leaf in leaves[cut:]:
        second.append(leaf)
        third.append(leaf)
    assert second.root == third.root() == hash_of(leaves)


@pytest.mark.parametrize(("public", "message", "signature"), VECTORS)
def test_the_verifier_accepts_the_specifications_signatures(
    public: str, message: str, signature: str
) -> None:
    key, published, signed = map(bytes.fromhex, (public, message, signature))
    assert verify.signed_by(key, signed, published)
    assert not verify.signed_by(key, signed, published + b".")
    assert not verify.signed_by(key, signed[:-1] + b"\xff", published)
    assert not verify.signed_by(b"\xff" * 32, signed, published)
    assert not verify.signed_by(key, signed[:40], published)


def test_a_note_verifies_with_its_own_key_only(tmp_path: Path) -> None:
    ours = load_signer("toolbus", tmp_path / "a" / "key.pem")
    theirs = load_signer("toolbus", tmp_path / "b" / "key.pem")
    note = ours.sign(CHECKPOINT)
    read = verify.Checkpoint(note, verify.Key(ours.verifier))
    assert (str(read.log), read.size, read.root) == ("toolbus/acme/17", 3, b"r" * 32)
    assert (read.at, read.before) == (1_800_000_000, (1, b"q" * 32))
    assert read.is_signed
    assert not verify.Checkpoint(note, verify.Key(theirs.verifier)).is_signed
    grown = verify.Checkpoint(note.replace("\n3\n", "\n4\n"), verify.Key(ours.verifier))
    assert not grown.is_signed


def test_the_key_is_created_once_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "evidence" / "key.pem"
    assert load_signer("toolbus", path).verifier == load_signer("toolbus", path).verifier
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_key_of_another_algorithm_is_rejected_by_name(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text("no key")
    with pytest.raises(ValueError, match=r"key\.pem is not an Ed25519 key"):
        load_signer("toolbus", path)


@pytest.mark.parametrize("text", ["", "toolbus+00000000+AAAA", "a+b", "toolbus+zz+!!"])
def test_a_damaged_public_key_is_reported(text: str) -> None:
    with pytest.raises(verify.UnreadableError):
        verify.Key(text)


@given(st.integers(1, 300), st.integers(0, 300))
def test_a_consistency_proof_verifies_from_every_earlier_size(old: int, more: int) -> None:
    tree = MerkleTree()
    for number in range(old):
        tree.append(b"%d" % number)
    growth, root = LogGrowth(tree.size, list(tree.right_edge)), tree.root
    for number in range(old, old + more):
        growth.append(b"%d" % number)
        tree.append(b"%d" % number)
    proof = growth.proof()
    assert growth.current_size == tree.size
    assert len(proof) <= 63
    assert len(growth.added_trees) <= 2 * tree.size.bit_length()
    assert consistent(old, root, tree.size, tree.root, proof)
    assert not more or not consistent(old, b"x" * 32, tree.size, tree.root, proof)
