"""Authenticate callers: keys, access tokens, DPoP proofs, and request restrictions."""
