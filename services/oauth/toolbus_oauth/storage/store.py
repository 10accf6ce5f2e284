"""The service's buckets: each record sealed, written with compare-and-set."""

from dataclasses import dataclass
from hashlib import sha256
from typing import TypeVar

from toolbus_common.crypto.sealed_tokens import Claims, TokenSealer
from toolbus_common.nats.kv_bucket import Bucket

C = TypeVar("C", bound=Claims)


@dataclass(frozen=True, slots=True)
class Store:
    """Records by kind and name in one bucket."""

    bucket: Bucket
    seal: TokenSealer

    async def get(self, kind: type[C], name: str) -> C | None:
        """The record, or None."""
        return (await self.seen(kind, name))[0]

    async def seen(self, kind: type[C], name: str) -> tuple[C | None, int]:
        """The record and its revision."""
        entry = await self.bucket.get(_place(kind, name))
        if entry is None or entry.value is None:
            return None, 0
        return self.seal.open(entry.value.decode("ascii", "replace"), kind), entry.revision

    async def put(self, name: str, record: Claims) -> None:
        """Write it, whatever is there."""
        await self.bucket.put(_place(type(record), name), self.seal.close(record).encode())

    async def swap(self, name: str, record: Claims, last: int) -> bool:
        """Write it over revision `last` (0: nothing) or not at all."""
        sealed = self.seal.close(record).encode()
        return await self.bucket.swap(_place(type(record), name), sealed, last) is not None

    async def drop(self, kind: type[Claims], name: str) -> None:
        """Forget it."""
        await self.bucket.delete(_place(kind, name))

    async def every(self, kind: type[C]) -> list[C]:
        """All records of a kind."""
        there = await self.bucket.present(f"{kind.__name__.lower()}.*")
        told = (each.value.decode("ascii", "replace") for each in there if each.value)
        opened = (self.seal.open(each, kind) for each in told)
        return [each for each in opened if each is not None]


def _place(kind: type[Claims], name: str) -> str:
    """Names are anybody's: what the bus sees of one is a digest."""
    return f"{kind.__name__.lower()}.{sha256(name.encode()).hexdigest()[:40]}"
