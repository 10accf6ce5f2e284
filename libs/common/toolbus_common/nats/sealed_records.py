"""Encryption of the records in buckets, so that the files of NATS and their copies are unreadable.

A sealed record consists of a version, the id of its key, and the output of `crypto.aead`. Each
record has a separate key, derived from a key file and from the record's location (bucket and
entry). A record that is copied to another location can therefore not be decrypted, and a service
that writes one entry needs only the key of that entry. The id selects the key file, so that records
of earlier key files can still be decrypted.
"""

import hmac
import logging
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from toolbus_common.crypto.aead import Aead, DecryptionError
from toolbus_common.crypto.key_file import accepted_keys, read_key
from toolbus_common.errors import UnavailableError
from toolbus_common.nats.kv_bucket import Change

log = logging.getLogger(__name__)

_VERSION = b"\x01"
_ID_BYTES = 8
_HEAD = len(_VERSION) + _ID_BYTES


@dataclass(frozen=True, slots=True)
class RecordKey:
    """The key of one location. `id` identifies the key file that the key is derived from."""

    id: bytes
    key: bytes

    @classmethod
    def decode(cls, text: str) -> "RecordKey":
        """Return the key from a text that `encode` returned."""
        raw = urlsafe_b64decode(text)
        return cls(raw[:_ID_BYTES], raw[_ID_BYTES:])

    def encode(self) -> str:
        """Return the key as text, for a message that is not stored."""
        return urlsafe_b64encode(self.id + self.key).decode()

    def seal(self, record: bytes) -> bytes:
        """Encrypt a record for this location."""
        head = _VERSION + self.id
        return head + Aead(self.key).seal(record, head)

    def open(self, sealed: bytes) -> bytes:
        """Decrypt a record of this location. Raises `DecryptionError`."""
        return Aead(self.key).open(sealed[_HEAD:], sealed[:_HEAD])


class Records:
    """Encryption of one bucket's records. The first key encrypts; all keys can decrypt."""

    def __init__(self, bucket: str, keys: Iterable[bytes]) -> None:
        self._bucket = bucket
        self._keys = [(_id_of(key), key) for key in keys]

    @classmethod
    def at(cls, bucket: str, path: Path, earlier: Iterable[Path] = ()) -> "Records":
        """Return the encryption with the keys in files. Raises `ValueError`.

        If the first file is missing, it is created. Keys beside it are accepted (`accepted_keys`).
        """
        return cls(bucket, [*accepted_keys(path), *map(read_key, earlier)])

    @property
    def keys(self) -> list[bytes]:
        """The key of new records, and the earlier keys."""
        return [key for _, key in self._keys]

    def key_of(self, entry: str) -> RecordKey:
        """Return the key that encrypts new records of an entry."""
        return self._derived(*self._keys[0], entry)

    def keys_of(self, entry: str) -> list[RecordKey]:
        """Return the keys that can decrypt records of an entry, the newest first."""
        return [self._derived(known, key, entry) for known, key in self._keys]

    def seal(self, entry: str, record: bytes) -> bytes:
        """Encrypt a record for this entry, with the first key."""
        return self.key_of(entry).seal(record)

    def open(self, entry: str, sealed: bytes) -> bytes:
        """Decrypt the stored value of this entry. Raises `UnavailableError`."""
        wanted = sealed[len(_VERSION) : _HEAD]
        for known, key in self._keys:
            if known == wanted and sealed.startswith(_VERSION):
                try:
                    return self._derived(known, key, entry).open(sealed)
                except DecryptionError:
                    break
        raise UnavailableError(
            f"An entry of bucket '{self._bucket}' cannot be decrypted with this policy's keys. "
            "Give every replica the same policy.key, and name earlier ones in "
            "TOOLBUS_POLICY_EARLIER_KEYS."
        )

    def opened(self, change: Change | None) -> Change | None:
        """Return a change with its value decrypted.

        A change that cannot be decrypted is returned as a deletion.
        """
        if change is None or change.value is None:
            return change
        try:
            return Change(change.key, self.open(change.key, change.value), change.revision)
        except UnavailableError as error:
            log.error("record.not_decrypted", extra={"entry": change.key, "reason": error.reason})  # noqa: TRY400
            return Change(change.key, None, change.revision)

    def _derived(self, known: bytes, key: bytes, entry: str) -> RecordKey:
        location = f"toolbus record\0{self._bucket}\0{entry}".encode()
        return RecordKey(known, hmac.digest(key, location, sha256))


def _id_of(key: bytes) -> bytes:
    return hmac.digest(key, b"toolbus key id", sha256)[:_ID_BYTES]
