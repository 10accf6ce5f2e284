"""DPoP (RFC 9449): create, verify and replay-check proofs that a token's holder has its key."""
