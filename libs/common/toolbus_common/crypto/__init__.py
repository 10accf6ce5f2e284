"""Sign and encrypt: sealed tokens and records, canonical JSON, key files, DPoP."""
