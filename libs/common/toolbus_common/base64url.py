"""Base64url encoding without padding (RFC 4648 section 5)."""

from base64 import urlsafe_b64decode, urlsafe_b64encode


def encoded(raw: bytes) -> str:
    """Return the base64url text of bytes."""
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    """Return the bytes of a base64url text.

    Raises `ValueError` for an invalid or non-canonical encoding.
    """
    raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if encoded(raw) != text:
        raise ValueError("not base64url")
    return raw
