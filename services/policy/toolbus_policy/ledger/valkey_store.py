"""Redis or Valkey: with `scripts` all that knows its client. All keys of a scope share one slot."""

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


def slot(scope: str, name: str) -> str:
    """A key of a scope, whatever its epoch."""
    return f"{{{scope}}}:{name}"


def inside(scope: str, epoch: str, name: str) -> str:
    """A key of one epoch: counters of another are never mistaken for it."""
    return f"{{{scope}}}:{epoch}:{name}"


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

    async def begin(self, scope: str, epoch: str) -> str:
        """The scope's epoch; this one if there was none. Redis decides who came first."""
        book = slot(scope, "book")
        await self._done(self._redis.hsetnx(book, "epoch", epoch))
        return (await self._done(self._redis.hget(book, "epoch"))).decode()  # type: ignore[no-any-return]

    async def end(self, scope: str) -> None:
        """Close the scope's book: nothing is spent until another is opened."""
        await self._done(self._redis.delete(slot(scope, "book")))

    async def lock(self, scope: str, token: str, seconds: float) -> bool:
        """Become the one who rebuilds."""
        key, milliseconds = slot(scope, "lock"), int(seconds * 1000)
        return bool(await self._done(self._redis.set(key, token, nx=True, px=milliseconds)))

    async def hold(self, scope: str, seconds: float) -> None:
        """Stay the one who rebuilds."""
        await self._done(self._redis.pexpire(slot(scope, "lock"), int(seconds * 1000)))

    async def unlock(self, scope: str, token: str) -> None:
        """Leave the rebuilding to others."""
        key = slot(scope, "lock")
        if await self._done(self._redis.get(key)) == token.encode():
            await self._done(self._redis.delete(key))

    async def remember(self, scope: str, name: str, value: float) -> None:
        """Keep a number that is no counter."""
        await self._done(self._redis.set(slot(scope, name), repr(value)))

    async def recall(self, scope: str, name: str) -> float:
        """That number, 0 if there is none."""
        return float(await self._done(self._redis.get(slot(scope, name))) or 0)

    async def open(self, scope: str, token: str, epoch: str) -> bool:
        """Let an epoch's counters count, if it is still us who rebuild."""
        keys = [slot(scope, "book"), slot(scope, "lock")]
        return bool(await self.run("open", keys, [token, epoch]))

    async def book(self, scope: str) -> tuple[str, int]:
        """The epoch and the tick of the counters that are there; empty when none are."""
        epoch, tick = await self._done(self._redis.hmget(slot(scope, "book"), ["epoch", "tick"]))
        return (epoch or b"").decode(), int(tick or 0)

    async def fill(self, scope: str, epoch: str, contents: Contents) -> None:
        """Write what an epoch begins with; nobody reads it before the book says so."""
        calls, due = inside(scope, epoch, "calls"), inside(scope, epoch, "due")
        pipeline = self._redis.pipeline(transaction=False)
        for counter, fields in contents.levels.items():
            pipeline.hset(inside(scope, epoch, counter), mapping=fields)  # type: ignore[arg-type]
        rids = list(contents.records)
        for start in range(0, len(rids), AT_ONCE):
            some = rids[start : start + AT_ONCE]
            pipeline.hset(calls, mapping={rid: contents.records[rid] for rid in some})
            pipeline.zadd(due, {rid: contents.due[rid] for rid in some})
        await self._done(pipeline.execute())

    async def levels(self, scope: str, epoch: str, counters: Sequence[str]) -> list[dict[str, int]]:
        """The levels behind these counters as they are stored."""
        pipeline = self._redis.pipeline(transaction=False)
        for counter in counters:
            pipeline.hgetall(inside(scope, epoch, counter))
        return [_numbers(raw) for raw in await self._done(pipeline.execute())]

    async def recorded(self, scope: str, epoch: str, rids: Sequence[str]) -> set[str]:
        """Those of these calls that have a record."""
        found = await self._done(self._redis.hmget(inside(scope, epoch, "calls"), list(rids)))
        return {rid for rid, record in zip(rids, found, strict=True) if record}

    async def forget(self, scope: str, epoch: str) -> None:
        """Remove what is left of every other epoch."""
        kept = tuple(slot(scope, name) for name in ("book", "lock", f"{epoch}:"))
        pattern = slot(scope, "*")  # names of scopes have none of the signs patterns use
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
