"""Sealed tokens: data that clients store for Toolbus, encrypted and authenticated."""

import hmac
from hashlib import sha256
from typing import Any, TypeVar

import msgspec

from toolbus_common.base64url import decoded, encoded
from toolbus_common.crypto.aead import Aead

DIGEST = 16
LONGEST = 64 * 1024  # characters; longer tokens are rejected

C = TypeVar("C", bound="Claims")


class Claims(msgspec.Struct, array_like=True, frozen=True):
    """Content of a sealed token.

    The class name is authenticated, so a token of one class is never accepted as another class.
    """


class TokenSealer:
    """Encrypts and decrypts claims of any class with one key."""

    def __init__(self, key: bytes) -> None:
        self._aead = Aead(key)
        self._digests = hmac.digest(key, b"toolbus digests", sha256)

    def close(self, claims: Claims) -> str:
        """Return the sealed token of claims, as ASCII text."""
        return encoded(self._aead.seal(msgspec.msgpack.encode(claims), _kind(type(claims))))

    def digest(self, text: str) -> str:
        """Return a keyed digest of a text. Without the key it reveals nothing about the text."""
        return hmac.new(self._digests, text.encode(), sha256).hexdigest()[:DIGEST]

    def open(self, text: Any, kind: type[C]) -> C | None:
        """Return the claims in a token; None if it is invalid or of another class."""
        if not isinstance(text, str) or not 0 < len(text) <= LONGEST:
            return None
        try:
            opened = self._aead.open(decoded(text), _kind(kind))
            return msgspec.msgpack.decode(opened, type=kind)
        except (ValueError, msgspec.MsgspecError):
            return None


def _kind(kind: type[Claims]) -> bytes:
    return kind.__name__.encode()
