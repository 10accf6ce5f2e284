"""Store the ledger in Redis or Valkey; all keys of a customer share one slot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from toolbus_common.errors import LedgerDownError
from toolbus_policy.ledger.lua_scripts import Scripts

FAULTS = (TimeoutError, RedisError, OSError)
AT_ONCE = 500


def slot(customer: str, name: str) -> str:
    """A key of a customer, whatever its epoch."""
    return f"{{{customer}}}:{name}"


def inside(customer: str, epoch: str, name: str) -> str:
    """A key of one epoch: counters of another are never mistaken for it."""
    return f"{{{customer}}}:{epoch}:{name}"


@dataclass(slots=True)
class Contents:
    """What an epoch begins with: levels by counter, records by call, and when each is due."""

    levels: dict[str, dict[str, int]] = field(default_factory=dict)
    records: dict[str, str] = field(default_factory=dict)
    due: dict[str, int] = field(default_factory=dict)


class Store:
    """The scripts, and the little that is done without them. Faults are `LedgerDownError`."""

    def __init__(self, url: str, seconds: float) -> None:
        self._redis: Redis = Redis.from_url(
            url,
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            retry=Retry(NoBackoff(), 1),
            max_connections=16,
        )
        self._scripts = Scripts(url, seconds)

    async def close(self) -> None:
        """Leave."""
        await self._scripts.close()
        await self._redis.aclose()

    async def reachable(self) -> bool:
        """Whether it answers now."""
        try:
            return bool(await self._redis.ping())
        except (RedisError, OSError):
            return False

    async def run(self, script: str, keys: list[str], arguments: Sequence[Any]) -> Any:
        """One script."""
        return await self._done(self._scripts.run(script, keys, arguments))

    async def begin(self, customer: str, epoch: str) -> str:
        """The customer's epoch; this one if there was none. Redis decides who came first."""
        book = slot(customer, "book")
        await self._done(self._redis.hsetnx(book, "epoch", epoch))
        return (await self._done(self._redis.hget(book, "epoch"))).decode()  # type: ignore[no-any-return]

    async def end(self, customer: str) -> None:
        """Close the customer's book: nothing is spent until another is opened."""
        await self._done(self._redis.delete(slot(customer, "book")))

    async def lock(self, customer: str, token: str, seconds: float) -> bool:
        """Become the one who rebuilds."""
        key, milliseconds = slot(customer, "lock"), int(seconds * 1000)
        return bool(await self._done(self._redis.set(key, token, nx=True, px=milliseconds)))

    async def hold(self, customer: str, seconds: float) -> None:
        """Stay the one who rebuilds."""
        await self._done(self._redis.pexpire(slot(customer, "lock"), int(seconds * 1000)))

    async def unlock(self, customer: str, token: str) -> None:
        """Leave the rebuilding to others."""
        key = slot(customer, "lock")
        if await self._done(self._redis.get(key)) == token.encode():
            await self._done(self._redis.delete(key))

    async def remember(self, customer: str, name: str, value: float) -> None:
        """Keep a number that is no counter."""
        await self._done(self._redis.set(slot(customer, name), repr(value)))

    async def recall(self, customer: str, name: str) -> float:
        """That number, 0 if there is none."""
        return float(await self._done(self._redis.get(slot(customer, name))) or 0)

    async def open(self, customer: str, token: str, epoch: str) -> bool:
        """Let an epoch's counters count, if it is still us who rebuild."""
        keys = [slot(customer, "book"), slot(customer, "lock")]
        return bool(await self.run("open", keys, [token, epoch]))

    async def book(self, customer: str) -> tuple[str, int]:
        """The epoch and the tick of the counters that are there; empty when none are."""
        epoch, tick = await self._done(self._redis.hmget(slot(customer, "book"), ["epoch", "tick"]))
        return (epoch or b"").decode(), int(tick or 0)

    async def fill(self, customer: str, epoch: str, contents: Contents) -> None:
        """Write what an epoch begins with; nobody reads it before the book says so."""
        calls, due = inside(customer, epoch, "calls"), inside(customer, epoch, "due")
        pipeline = self._redis.pipeline(transaction=False)
        for counter, fields in contents.levels.items():
            pipeline.hset(inside(customer, epoch, counter), mapping=fields)  # type: ignore[arg-type]
        rids = list(contents.records)
        for start in range(0, len(rids), AT_ONCE):
            some = rids[start : start + AT_ONCE]
            pipeline.hset(calls, mapping={rid: contents.records[rid] for rid in some})
            pipeline.zadd(due, {rid: contents.due[rid] for rid in some})
        await self._done(pipeline.execute())

    async def levels(
        self, customer: str, epoch: str, counters: Sequence[str]
    ) -> list[dict[str, int]]:
        """The levels behind these counters as they are stored."""
        pipeline = self._redis.pipeline(transaction=False)
        for counter in counters:
            pipeline.hgetall(inside(customer, epoch, counter))
        return [_numbers(raw) for raw in await self._done(pipeline.execute())]

    async def recorded(self, customer: str, epoch: str, rids: Sequence[str]) -> set[str]:
        """Those of these calls that have a record."""
        found = await self._done(self._redis.hmget(inside(customer, epoch, "calls"), list(rids)))
        return {rid for rid, record in zip(rids, found, strict=True) if record}

    async def forget(self, customer: str, epoch: str) -> None:
        """Remove what is left of every other epoch."""
        kept = tuple(slot(customer, name) for name in ("book", "lock", f"{epoch}:"))
        pattern = slot(customer, "*")  # names of customers have none of the signs patterns use
        try:
            old = [
                key
                async for key in self._redis.scan_iter(match=pattern, count=1000)
                if not key.decode().startswith(kept)
            ]
            for start in range(0, len(old), AT_ONCE):
                await self._redis.unlink(*old[start : start + AT_ONCE])
        except FAULTS as error:
            raise down() from error

    async def _done(self, work: Any) -> Any:
        try:
            return await work
        except FAULTS as error:
            raise down() from error


def down() -> LedgerDownError:
    """The sentence for a Redis that is not there."""
    return LedgerDownError(
        "The ledger (Redis) cannot be reached, so nothing may be spent; nothing was sent. Retry."
    )


def _numbers(raw: Mapping[bytes, bytes]) -> dict[str, int]:
    return {name.decode(): int(value) for name, value in raw.items()}
