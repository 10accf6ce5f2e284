"""Connections to Redis by URL: to one server, or to the primary that Sentinel names.

`redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/PRIMARY` names sentinels; `rediss+sentinel` is
the same with TLS. The user and password are those of the servers.
"""

import ssl
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import parse_url
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.exceptions import RedisError

from toolbus_common.settings import SettingError
from toolbus_common.tls_files import no_password, reason_of

SENTINEL = "+sentinel"
SENTINEL_PORT = 26379
_SENTINEL_USER = ("sentinel_username", "sentinel_password")
_TLS = "ssl_"


class RedisUrlError(SettingError):
    """The URL of Redis, or a file that it names, is invalid. The message has no other part of it.

    The error has no cause, because the causes quote the URL, and the URL contains a password.
    """


def pool_of(url: str, **options: Any) -> ConnectionPool:
    """Return a pool without connections. Raises `RedisUrlError`."""
    try:
        is_sentinel = SENTINEL in urlsplit(url).scheme
        pool = (
            _sentinel_pool(url, options) if is_sentinel else ConnectionPool.from_url(url, **options)
        )
        pool.make_connection()  # type: ignore[no-untyped-call] # refuses unknown options
    except (ValueError, TypeError, RedisError):
        raise RedisUrlError(
            "TOOLBUS_REDIS_URL is not valid; set redis://HOST:PORT, rediss://HOST:PORT or "
            "redis+sentinel://HOST:PORT,HOST:PORT/PRIMARY, with known options, and with "
            "percent-encoding in the user and password."
        ) from None
    _check_files(pool.connection_kwargs)
    return pool


async def close_pool(pool: ConnectionPool) -> None:
    """Close the pool's connections, also those to sentinels."""
    await pool.disconnect()
    if isinstance(pool, SentinelConnectionPool):
        for sentinel in pool.sentinel_manager.sentinels:
            await sentinel.aclose()


def _server_pool(url: str, options: dict[str, Any]) -> ConnectionPool:
    return ConnectionPool.from_url(url, **options)


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


def _check_files(options: dict[str, Any]) -> None:
    """Raise `RedisUrlError` if a file with certificates cannot be used."""
    ca = options.get(f"{_TLS}ca_certs")
    certificate, key = options.get(f"{_TLS}certfile"), options.get(f"{_TLS}keyfile")
    if not (ca or certificate or key):
        return
    context, named = ssl.create_default_context(), f"ssl_ca_certs={ca}"
    try:
        if ca:
            context.load_verify_locations(ca)
        named = f"ssl_certfile={certificate} with ssl_keyfile={key}"
        if certificate is not None or key is not None:
            password = options.get(f"{_TLS}password") or no_password
            context.load_cert_chain(certificate or "", key, password)
    except (OSError, ValueError) as error:
        raise RedisUrlError(
            f"TOOLBUS_REDIS_URL: {named} cannot be used ({reason_of(error)}); set readable PEM "
            "files."
        ) from None


def _address(text: str) -> tuple[str, int]:
    found = urlsplit(f"//{text}")
    if not found.hostname:
        raise ValueError("a sentinel has no host")
    return found.hostname, found.port or SENTINEL_PORT
