"""Store the ledger in Redis or Valkey; all keys of a customer share one slot."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    RedisClusterException,
    RedisError,
)

from toolbus_common.errors import LedgerDownError
from toolbus_policy.ledger.lua_scripts import ClusterScriptRunner, ScriptRunner
from toolbus_policy.ledger.redis_url import close_pool, cluster_of, is_cluster, pool_of

REDIS_ERRORS = (TimeoutError, RedisError, RedisClusterException, OSError)
BATCH_SIZE = 500
REJECTED = (
    "Redis rejects the user or password: paid calls are denied; correct them in TOOLBUS_REDIS_URL"
)
UNREACHABLE = "Redis unreachable: paid calls are denied"
IN_CLUSTER = (
    "Redis is a server of a cluster: paid calls are denied; set TOOLBUS_REDIS_URL to "
    "redis+cluster://HOST:PORT,HOST:PORT"
)
CLUSTER_DOWN = (
    "Redis Cluster has hash slots without a primary: paid calls of their customers are denied; see "
    "'CLUSTER INFO'"
)
# The hash that identifies a customer's generation. Its name changes with the form of the levels and
# records: counters of an older form then count as lost, and are rebuilt from the events.
BOOK = "book2"


def customer_key(customer: str, name: str) -> str:
    """Return a customer's key in Redis that is independent of the generation."""
    return f"{{{customer}}}:{name}"


def generation_key(customer: str, generation: str, name: str) -> str:
    """Return a key in Redis of one generation, so that generations have separate counters."""
    return f"{{{customer}}}:{generation}:{name}"


@dataclass(slots=True)
class CounterContents:
    """Initial contents of a generation: levels by counter; records and due times (ms) by call."""

    levels: dict[str, dict[str, int]] = field(default_factory=dict)
    records: dict[str, str] = field(default_factory=dict)
    due: dict[str, int] = field(default_factory=dict)


class ValkeyStore:
    """Scripts and plain commands of the ledger. Redis errors become `LedgerDownError`."""

    def __init__(self, url: str, seconds: float) -> None:
        self._redis: Redis | RedisCluster
        self._scripts: ScriptRunner | ClusterScriptRunner
        if is_cluster(url):
            self._redis = cluster_of(url, seconds)
            self._scripts = ClusterScriptRunner(self._redis, seconds)
            return
        pool = pool_of(
            url,
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            retry=Retry(NoBackoff(), 1),
            max_connections=16,
        )
        self._redis = Redis.from_pool(pool)
        self._scripts = ScriptRunner(url, seconds)

    async def close(self) -> None:
        """Close the connections."""
        await self._scripts.close()
        await self._redis.aclose()
        if isinstance(self._redis, Redis):
            await close_pool(self._redis.connection_pool)

    async def reachable(self) -> bool:
        """Return whether Redis replies."""
        return not await self.problem()

    async def problem(self) -> str:
        """Return why Redis cannot be used; empty if it can."""
        try:
            if isinstance(self._redis, RedisCluster):
                state = await self._redis.cluster_info()
                return "" if state["cluster_state"] == "ok" else CLUSTER_DOWN
            await self._redis.ping()
            mode = await self._redis.info("cluster")
        except NoPermissionError:
            return ""
        except REDIS_ERRORS as error:  # in a cluster, the cause says why no server can be used
            rejected = any(
                isinstance(each, AuthenticationError) for each in (error, error.__cause__)
            )
            return REJECTED if rejected else UNREACHABLE
        return IN_CLUSTER if mode.get("cluster_enabled") else ""

    async def run(self, script: str, keys: list[str], arguments: Sequence[Any]) -> Any:
        """Run one script."""
        return await self._checked(self.send(script, keys, arguments))

    def send(self, script: str, keys: list[str], arguments: Sequence[Any]) -> asyncio.Future[Any]:
        """Send one script; the future ends with the reply or with one of `REDIS_ERRORS`."""
        return self._scripts.run(script, keys, arguments)

    async def begin_generation(self, customer: str, generation: str) -> str:
        """Store this generation unless the customer has one.

        Return the stored generation. The operation is atomic in Redis.
        """
        book = customer_key(customer, BOOK)
        await self._checked(self._redis.hsetnx(book, "epoch", generation))
        return (await self._checked(self._redis.hget(book, "epoch"))).decode()  # type: ignore[no-any-return]

    async def close_counters(self, customer: str) -> None:
        """Close the customer's counters. Nothing is reserved until a generation is opened."""
        await self._checked(self._redis.delete(customer_key(customer, BOOK)))

    async def lock(self, customer: str, token: str, seconds: float) -> bool:
        """Take the rebuild lock; return whether it was free."""
        key, milliseconds = customer_key(customer, "lock"), int(seconds * 1000)
        return bool(await self._checked(self._redis.set(key, token, nx=True, px=milliseconds)))

    async def extend_lock(self, customer: str, token: str, seconds: float) -> bool:
        """Extend the rebuild lock; return whether it still has this token."""
        key = customer_key(customer, "lock")
        if await self._checked(self._redis.get(key)) != token.encode():
            return False
        return bool(await self._checked(self._redis.pexpire(key, int(seconds * 1000))))

    async def unlock(self, customer: str, token: str) -> None:
        """Release the rebuild lock, if it still has this token."""
        key = customer_key(customer, "lock")
        if await self._checked(self._redis.get(key)) == token.encode():
            await self._checked(self._redis.delete(key))

    async def write_number(self, customer: str, name: str, value: float) -> None:
        """Store a number that is not a counter."""
        await self._checked(self._redis.set(customer_key(customer, name), repr(value)))

    async def read_number(self, customer: str, name: str) -> float:
        """Return a number that is not a counter; 0 if it is not stored."""
        return float(await self._checked(self._redis.get(customer_key(customer, name))) or 0)

    async def open_generation(self, customer: str, token: str, generation: str) -> bool:
        """Open a generation's counters, if this process still has the rebuild lock."""
        keys = [customer_key(customer, BOOK), customer_key(customer, "lock")]
        return bool(await self.run("open", keys, [token, generation]))

    async def read_state(self, customer: str) -> tuple[str, int]:
        """Return generation and tick of the stored counters; `""` and 0 if none are stored."""
        generation, tick = await self._checked(
            self._redis.hmget(customer_key(customer, BOOK), ["epoch", "tick"])
        )
        return (generation or b"").decode(), int(tick or 0)

    async def write_contents(
        self, customer: str, generation: str, contents: CounterContents
    ) -> None:
        """Write a generation's initial contents; they are unused until it is opened."""
        calls, due = (
            generation_key(customer, generation, "calls"),
            generation_key(customer, generation, "due"),
        )
        pipeline = self._redis.pipeline(transaction=False)
        for counter, fields in contents.levels.items():
            pipeline.hset(generation_key(customer, generation, counter), mapping=fields)  # type: ignore[arg-type]
        rids = list(contents.records)
        for start in range(0, len(rids), BATCH_SIZE):
            some = rids[start : start + BATCH_SIZE]
            pipeline.hset(calls, mapping={rid: contents.records[rid] for rid in some})
            pipeline.zadd(due, {rid: contents.due[rid] for rid in some})
        await self._checked(pipeline.execute())

    async def read_levels(
        self, customer: str, generation: str, counters: Sequence[str]
    ) -> list[dict[str, int]]:
        """Return the stored levels of these counters."""
        pipeline = self._redis.pipeline(transaction=False)
        for counter in counters:
            pipeline.hgetall(generation_key(customer, generation, counter))
        return [_numbers(raw) for raw in await self._checked(pipeline.execute())]

    async def recorded(self, customer: str, generation: str, rids: Sequence[str]) -> set[str]:
        """Return which of these calls have a reservation record."""
        found = await self._checked(
            self._redis.hmget(generation_key(customer, generation, "calls"), list(rids))
        )
        return {rid for rid, record in zip(rids, found, strict=True) if record}

    async def delete_other_generations(self, customer: str, generation: str) -> None:
        """Delete the keys of the customer's other generations."""
        present = tuple(customer_key(customer, name) for name in (BOOK, "lock", f"{generation}:"))
        pattern = customer_key(customer, "*")  # customer names contain no pattern characters
        try:
            old = [
                key
                async for key in self._redis.scan_iter(match=pattern, count=1000)
                if not key.decode().startswith(present)
            ]
            for start in range(0, len(old), BATCH_SIZE):
                await self._redis.unlink(*old[start : start + BATCH_SIZE])
        except REDIS_ERRORS as error:
            raise ledger_down_error() from error

    async def _checked(self, work: Any) -> Any:
        try:
            return await work
        except REDIS_ERRORS as error:
            raise ledger_down_error() from error


def ledger_down_error() -> LedgerDownError:
    """Return the error for an unreachable Redis."""
    return LedgerDownError(
        "The ledger (Redis) is unreachable, so paid calls are denied; the call was not "
        "dispatched. Retry."
    )


def _numbers(raw: Mapping[bytes, bytes]) -> dict[str, int]:
    return {name.decode(): int(value) for name, value in raw.items()}
