"""Sealed tokens: claims that clients store for Toolbus, encrypted and tamper-proof."""

import hmac
import os
from base64 import urlsafe_b64decode
from hashlib import sha256
from typing import Any, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from toolbus_common.base64url import encoded

_NONCE_BYTES = 12
DIGEST = 16
LONGEST = 64 * 1024  # characters; longer tokens are not genuine

C = TypeVar("C", bound="Claims")


class Claims(msgspec.Struct, array_like=True, frozen=True):
    """Sealed content. The kind's name is authenticated, so that one kind never opens as another."""


class TokenSealer:
    """AES-256-GCM (NIST SP 800-38D) with a random nonce for each token."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._digests = hmac.digest(key, b"toolbus digests", sha256)

    def close(self, claims: Claims) -> str:
        """Encrypt claims into an ASCII token."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, msgspec.msgpack.encode(claims), _kind(type(claims)))
        return encoded(nonce + sealed)

    def digest(self, text: str) -> str:
        """Return a keyed digest of a text, which reveals nothing of it without the key."""
        return hmac.new(self._digests, text.encode(), sha256).hexdigest()[:DIGEST]

    def open(self, text: Any, kind: type[C]) -> C | None:
        """Decrypt a token; None if it is invalid or of another kind."""
        if not isinstance(text, str) or not 0 < len(text) <= LONGEST:
            return None
        try:
            raw = urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4))
            if encoded(raw) != text:  # the decoder accepts other spellings of the same bytes
                return None
            opened = self._cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _kind(kind))
            return msgspec.msgpack.decode(opened, type=kind)
        except (ValueError, InvalidTag, msgspec.MsgspecError):
            return None


def _kind(kind: type[Claims]) -> bytes:
    return kind.__name__.encode()
