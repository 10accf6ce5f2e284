"""Administrators' operations on recorded events: queries, exports, proofs, and legal holds."""
