"""Connections to Redis by URL: to one server, to the primary that Sentinel names, or to a cluster.

`redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/PRIMARY` names sentinels, and
`redis+cluster://USER:PASSWORD@HOST:PORT,HOST:PORT` any servers of a cluster; `rediss+…` is the same
with TLS. The user and password are those of the servers.
"""

import ssl
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import ConnectionPool, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from toolbus_common.settings import SettingError
from toolbus_common.tls_files import no_password, reason_of

SENTINEL = "+sentinel"
SENTINEL_PORT = 26379
CLUSTER = "+cluster"
PORT = 6379
_SENTINEL_USER = ("sentinel_username", "sentinel_password")
_TLS = "ssl_"


class RedisUrlError(SettingError):
    """The URL of Redis, or a file that it names, is invalid. The message shows no part of the URL.

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
        raise _invalid() from None
    _check_files(pool.connection_kwargs)
    return pool


def is_cluster(url: str) -> bool:
    """Return whether the URL names servers of a cluster. Raises `RedisUrlError`."""
    try:
        return CLUSTER in urlsplit(url).scheme
    except ValueError:
        raise _invalid() from None


def cluster_of(url: str, seconds: float) -> RedisCluster:
    """Return a client of a cluster that is not connected. Raises `RedisUrlError`.

    The client follows slots that move; it does not send a command again whose reply was lost.
    """
    try:
        scheme, hosts, given = _parts(url, CLUSTER)
        if given.pop("path", None) or urlsplit(url).path.strip("/"):
            raise ValueError("a cluster has no databases")  # noqa: TRY301
        secured: dict[str, Any] = {"ssl": True} if scheme == "rediss" else {}
        cluster = RedisCluster(
            startup_nodes=[ClusterNode(*_address(host, PORT)) for host in hosts],
            require_full_coverage=False,  # customers of the other slots continue
            protocol=2,
            socket_timeout=seconds / 2,  # so that a script can be sent again in time
            socket_connect_timeout=seconds / 2,
            retry=Retry(NoBackoff(), 0),
            **given,
            **secured,
        )
    except (ValueError, TypeError, RedisError, RedisClusterException):
        raise _invalid() from None
    _check_files(cluster.connection_kwargs)
    return cluster


def _invalid() -> RedisUrlError:
    return RedisUrlError(
        "TOOLBUS_REDIS_URL is not valid; set redis://HOST:PORT, rediss://HOST:PORT, "
        "redis+sentinel://HOST:PORT,HOST:PORT/PRIMARY or redis+cluster://HOST:PORT,HOST:PORT, with "
        "known options, and with percent-encoding in the user and password."
    )


async def close_pool(pool: ConnectionPool) -> None:
    """Close the pool's connections, also those to sentinels."""
    await pool.disconnect()
    if isinstance(pool, SentinelConnectionPool):
        for sentinel in pool.sentinel_manager.sentinels:
            await sentinel.aclose()


def _server_pool(url: str, options: dict[str, Any]) -> ConnectionPool:
    return ConnectionPool.from_url(url, **options)


def _sentinel_pool(url: str, options: dict[str, Any]) -> ConnectionPool:
    scheme, hosts, given = _parts(url, SENTINEL)
    primary = urlsplit(url).path.strip("/")
    if not primary:
        raise ValueError("the primary is missing")
    own = {name.removeprefix("sentinel_"): given.pop(name, None) for name in _SENTINEL_USER}
    secured = {"ssl": True} if scheme == "rediss" else {}
    seconds = options["socket_connect_timeout"]
    timeouts = {"socket_timeout": seconds, "socket_connect_timeout": seconds}
    tls = {name: value for name, value in given.items() if name.startswith(_TLS)}
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        [_address(host, SENTINEL_PORT) for host in hosts],
        sentinel_kwargs={**own, **timeouts, **tls, **secured},
    )
    pool: ConnectionPool = SentinelConnectionPool(  # type: ignore[no-untyped-call]
        primary, sentinel, **given, **secured, **options
    )
    return pool


def _parts(url: str, kind: str) -> tuple[str, list[str], dict[str, Any]]:
    """Return the scheme without `kind`, the hosts, and the options. Raises `ValueError`."""
    parts = urlsplit(url)
    scheme = parts.scheme.removesuffix(kind)
    credentials, at, hosts = parts.netloc.rpartition("@")
    if not hosts:
        raise ValueError("the hosts are missing")
    given: dict[str, Any] = {**parse_url(f"{scheme}://{credentials}{at}localhost?{parts.query}")}
    for name in ("host", "port", "connection_class"):
        given.pop(name, None)
    return scheme, hosts.split(","), given


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


def _address(text: str, default: int) -> tuple[str, int]:
    found = urlsplit(f"//{text}")
    if not found.hostname:
        raise ValueError("a server has no host")
    return found.hostname, found.port or default
