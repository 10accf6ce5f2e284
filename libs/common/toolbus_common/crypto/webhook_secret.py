"""Secrets of webhooks in the form of Standard Webhooks, version 1 (no I/O)."""

from base64 import b64decode
from binascii import Error as NotBase64

PREFIX = "whsec_"
SHORTEST, LONGEST = 24, 64  # bytes of a key, as specified
FORM = f"{PREFIX} and the Base64 of {SHORTEST} to {LONGEST} bytes"


def key_of(secret: str) -> bytes:
    """Return the signing key that a secret contains.

    Raises:
        ValueError: the secret is not `whsec_` and the Base64 of 24 to 64 bytes.

    """
    # The library ignores characters that are not Base64, and would then sign with another key.
    try:
        key = b64decode(secret.removeprefix(PREFIX), validate=True)
    except NotBase64:
        key = b""
    if not secret.startswith(PREFIX) or not SHORTEST <= len(key) <= LONGEST:
        raise ValueError(f"is not {FORM}")
    return key
