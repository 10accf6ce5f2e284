"""Signatures and encryption: AES-GCM, sealed tokens, JWS, DPoP, canonical JSON, key files."""
