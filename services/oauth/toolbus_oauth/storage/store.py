"""Store of encrypted records in NATS key-value buckets."""

from dataclasses import dataclass
from hashlib import sha256
from typing import TypeVar

from toolbus_common.crypto.sealed_tokens import Claims, TokenSealer
from toolbus_common.nats.kv_bucket import Bucket

C = TypeVar("C", bound=Claims)


@dataclass(frozen=True, slots=True)
class Store:
    """Repository of encrypted records in one bucket, by kind and name."""

    bucket: Bucket
    seal: TokenSealer

    async def get(self, kind: type[C], name: str) -> C | None:
        """Return the record, or None if it does not exist or cannot be decrypted."""
        return (await self.get_with_revision(kind, name))[0]

    async def get_with_revision(self, kind: type[C], name: str) -> tuple[C | None, int]:
        """Return the record and its revision; (None, 0) if it does not exist."""
        entry = await self.bucket.get(_storage_key(kind, name))
        if entry is None or entry.value is None:
            return None, 0
        return self.seal.open(entry.value.decode("ascii", "replace"), kind), entry.revision

    async def put(self, name: str, record: Claims) -> None:
        """Write the record unconditionally."""
        await self.bucket.put(_storage_key(type(record), name), self.seal.close(record).encode())

    async def swap(self, name: str, record: Claims, last: int) -> bool:
        """Write the record if its revision is still `last`; return whether it was written.

        0 is the revision of a record that does not exist.
        """
        sealed = self.seal.close(record).encode()
        return await self.bucket.swap(_storage_key(type(record), name), sealed, last) is not None

    async def drop(self, kind: type[Claims], name: str) -> None:
        """Delete the record."""
        await self.bucket.delete(_storage_key(kind, name))

    async def every(self, kind: type[C]) -> list[C]:
        """Return all records of a kind."""
        there = await self.bucket.present(f"{kind.__name__.lower()}.*")
        sealed = (each.value.decode("ascii", "replace") for each in there if each.value)
        opened = (self.seal.open(each, kind) for each in sealed)
        return [each for each in opened if each is not None]

    async def reencrypt(self) -> int:
        """Re-encrypt records of other accepted keys with the key in use; return their number."""
        kinds = {each.__name__.lower(): each for each in Claims.__subclasses__()}
        count = 0
        for each in await self.bucket.present():
            kind = kinds.get(each.key.partition(".")[0])
            if kind is None or not each.value:
                continue
            sealed = self.seal.resealed(each.value.decode("ascii", "replace"), kind)
            if sealed is not None:
                written = await self.bucket.swap(each.key, sealed.encode(), each.revision)
                count += written is not None
        return count


def _storage_key(kind: type[Claims], name: str) -> str:
    """Return the storage key; it contains a digest of the name, which may be personal."""
    return f"{kind.__name__.lower()}.{sha256(name.encode()).hexdigest()[:40]}"
