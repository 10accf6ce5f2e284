"""Sealed tokens: data that clients store for Toolbus, encrypted and authenticated."""

import hmac
from contextlib import suppress
from hashlib import sha256
from typing import Any, TypeVar

import msgspec

from toolbus_common.base64url import decoded, encoded
from toolbus_common.crypto.aead import Aead, DecryptionError

DIGEST = 16
LONGEST = 64 * 1024  # characters; longer tokens are rejected

C = TypeVar("C", bound="Claims")


class Claims(msgspec.Struct, array_like=True, frozen=True):
    """Content of a sealed token.

    The class name is authenticated, so a token of one class is never accepted as another class.
    """


class TokenSealer:
    """Encrypts claims of any class with one key; decrypts with it and with other accepted keys."""

    def __init__(self, key: bytes, *accepted: bytes) -> None:
        self._aead = Aead(key)
        self._accepted = [Aead(each) for each in accepted]
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
            sealed = decoded(text)
            try:
                opened = self._aead.open(sealed, _kind(kind))
            except DecryptionError:
                opened = self._opened_by_accepted(sealed, _kind(kind))
            return msgspec.msgpack.decode(opened, type=kind)
        except (ValueError, msgspec.MsgspecError):
            return None

    def resealed(self, text: str, kind: type[Claims]) -> str | None:
        """Return a token of another accepted key, encrypted again with the key in use.

        Return None for any other token.
        """
        with suppress(ValueError):
            sealed, name = decoded(text), _kind(kind)
            try:
                self._aead.open(sealed, name)
            except DecryptionError:
                return encoded(self._aead.seal(self._opened_by_accepted(sealed, name), name))
        return None

    def _opened_by_accepted(self, sealed: bytes, kind: bytes) -> bytes:
        """Decrypt a token with one of the other accepted keys. Raises `DecryptionError`."""
        for aead in self._accepted:
            with suppress(DecryptionError):
                return aead.open(sealed, kind)
        raise DecryptionError


def _kind(kind: type[Claims]) -> bytes:
    return kind.__name__.encode()
