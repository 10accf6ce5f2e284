"""Signatures and encryption: sealed tokens, canonical JSON, key files, DPoP."""
