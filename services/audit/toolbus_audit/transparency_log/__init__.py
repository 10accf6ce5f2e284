"""Transparency log: a Merkle tree over each customer's events, with signed checkpoints."""
