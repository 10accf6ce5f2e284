"""Signing keys, and the parser of unverified tokens."""
