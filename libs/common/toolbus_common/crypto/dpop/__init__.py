"""DPoP (RFC 9449): proofs that the holder of a token has the token's key.

Creation and verification.
"""
