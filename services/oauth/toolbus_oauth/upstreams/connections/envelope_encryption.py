"""Envelope encryption: a data key per record, encrypted with the master key."""

import os
from collections.abc import Sequence
from typing import Any, TypeVar

from toolbus_common.crypto.key_file import KEY_BYTES
from toolbus_common.crypto.sealed_tokens import Claims, TokenSealer
from toolbus_common.nats.kv_bucket import Bucket

C = TypeVar("C", bound=Claims)
_BETWEEN = "."


class DataKey(Claims, frozen=True):
    """Data key that encrypts one record."""

    key: bytes


class Envelope(TokenSealer):
    """Encryption with the newest master key, and decryption with any known master key."""

    def __init__(self, master: bytes, earlier: Sequence[bytes] = ()) -> None:
        super().__init__(master)
        self._earlier = [TokenSealer(each) for each in earlier]

    def close(self, claims: Claims) -> str:
        """Return the encrypted data key and the encrypted record as one text."""
        key = os.urandom(KEY_BYTES)
        return f"{super().close(DataKey(key))}{_BETWEEN}{TokenSealer(key).close(claims)}"

    def open(self, text: Any, kind: type[C]) -> C | None:
        """Return the record, or None if it cannot be decrypted or is of another kind."""
        wrapped, _, sealed = text.partition(_BETWEEN) if isinstance(text, str) else ("", "", "")
        found = super().open(wrapped, DataKey) or self._opened_before(wrapped)
        return TokenSealer(found.key).open(sealed, kind) if found is not None else None

    def reencrypt(self, text: str) -> str | None:
        """Return the record with its data key re-encrypted with the newest master key.

        Return None if no earlier master key decrypts it.
        """
        wrapped, _, sealed = text.partition(_BETWEEN)
        found = self._opened_before(wrapped)
        return f"{super().close(found)}{_BETWEEN}{sealed}" if found is not None else None

    def _opened_before(self, wrapped: str) -> DataKey | None:
        tried = (each.open(wrapped, DataKey) for each in self._earlier)
        return next((found for found in tried if found is not None), None)


async def reencrypt(bucket: Bucket, envelope: Envelope) -> int:
    """Re-encrypt the records of earlier master keys; return the number of written records."""
    count = 0
    for each in await bucket.present():
        fresh = envelope.reencrypt(each.value.decode("ascii", "replace")) if each.value else None
        if fresh is not None:
            written = await bucket.swap(each.key, fresh.encode(), each.revision)
            count += written is not None
    return count
