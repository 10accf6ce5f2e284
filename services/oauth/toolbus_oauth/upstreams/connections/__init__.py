"""Tokens of connected accounts: encryption, records, renewal lock."""
