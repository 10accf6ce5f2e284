"""Authenticated encryption: AES-256-GCM (NIST SP 800-38D), with the nonce before the ciphertext."""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: TID251
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from toolbus_common.crypto.key_file import KEY_BYTES

NONCE_BYTES = 12
TAG_BYTES = 16


class DecryptionError(ValueError):
    """The ciphertext was changed, or was encrypted with another key or for another context."""


class Aead:
    """A key that encrypts and decrypts texts for a context.

    Nonces are random, so encrypt at most 2**32 texts with one key. A sealed text consists of the
    nonce (12 bytes), the ciphertext and the tag (16 bytes). The context is authenticated but not
    stored. It names the purpose and the location of the text, so that a text copied to another
    location cannot be decrypted. A key of another length than 32 bytes raises `ValueError`.
    """

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"The key has {len(key)} bytes; AES-256 needs {KEY_BYTES}.")
        self._cipher = AESGCM(key)

    def seal(self, plaintext: bytes, context: bytes) -> bytes:
        """Encrypt a text for a context."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plaintext, context)

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Decrypt a text that was sealed for this context. Raises `DecryptionError`."""
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context)
        except (InvalidTag, ValueError) as error:  # ValueError: shorter than a nonce
            raise DecryptionError(
                "The ciphertext was changed, or sealed with another key or context."
            ) from error


def derived_key(secret: bytes, purpose: bytes) -> bytes:
    """Return a key for one purpose, derived from an unguessable secret (HKDF, RFC 5869)."""
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=purpose).derive(secret)
