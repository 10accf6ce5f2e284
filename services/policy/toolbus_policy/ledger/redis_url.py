"""Connections to Redis by URL: to one server, or to the primary that Sentinel names.

`redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/PRIMARY` names sentinels; `rediss+sentinel` is
the same with TLS. The user and password are those of the servers.
"""

from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import parse_url
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool

SENTINEL = "+sentinel"
SENTINEL_PORT = 26379
_SENTINEL_USER = ("sentinel_username", "sentinel_password")
_TLS = "ssl_"


class RedisUrlError(ValueError):
    """The URL of Redis is invalid. The message contains no part of the URL."""


def pool_of(url: str, **options: Any) -> ConnectionPool:
    """Return a pool without connections. Raises `RedisUrlError`."""
    try:
        if SENTINEL in urlsplit(url).scheme:
            return _sentinel_pool(url, options)
        return ConnectionPool.from_url(url, **options)
    except ValueError as error:
        raise RedisUrlError(
            "TOOLBUS_REDIS_URL is not valid; set redis://HOST:PORT, rediss://HOST:PORT or "
            "redis+sentinel://HOST:PORT,HOST:PORT/PRIMARY."
        ) from error


async def close_pool(pool: ConnectionPool) -> None:
    """Close the pool's connections, also those to sentinels."""
    await pool.disconnect()
    if isinstance(pool, SentinelConnectionPool):
        for sentinel in pool.sentinel_manager.sentinels:
            await sentinel.aclose()


def _sentinel_pool(url: str, options: dict[str, Any]) -> ConnectionPool:
    parts = urlsplit(url)
    scheme = parts.scheme.removesuffix(SENTINEL)
    credentials, at, hosts = parts.netloc.rpartition("@")
    primary = parts.path.strip("/")
    if not (primary and hosts):
        raise ValueError("a part is missing")
    given: dict[str, Any] = {**parse_url(f"{scheme}://{credentials}{at}localhost?{parts.query}")}
    for name in ("host", "port", "connection_class"):
        given.pop(name, None)
    own = {name.removeprefix("sentinel_"): given.pop(name, None) for name in _SENTINEL_USER}
    secured = {"ssl": True} if scheme == "rediss" else {}
    seconds = options["socket_connect_timeout"]
    timeouts = {"socket_timeout": seconds, "socket_connect_timeout": seconds}
    tls = {name: value for name, value in given.items() if name.startswith(_TLS)}
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        [_address(host) for host in hosts.split(",")],
        sentinel_kwargs={**own, **timeouts, **tls, **secured},
    )
    pool: ConnectionPool = SentinelConnectionPool(  # type: ignore[no-untyped-call]
        primary, sentinel, **given, **secured, **options
    )
    return pool


def _address(text: str) -> tuple[str, int]:
    found = urlsplit(f"//{text}")
    if not found.hostname:
        raise ValueError("a sentinel has no host")
    return found.hostname, found.port or SENTINEL_PORT
