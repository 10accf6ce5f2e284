"""Authentication of callers: keys, access tokens, DPoP proofs, request restrictions."""
