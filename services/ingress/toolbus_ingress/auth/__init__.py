"""Authenticate callers: keys, access tokens, DPoP proofs, and headers that narrow a request."""
