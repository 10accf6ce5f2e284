"""Sign and encrypt: AES-GCM, sealed tokens, JWS, DPoP, canonical JSON, key files."""
