"""Resolution of a host to its addresses, once per connection."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

from toolbus_common.egress.addresses import PUBLIC, kind_of
from toolbus_common.egress.policy import Egress
from toolbus_common.egress.url_target import EgressError, Target

Resolve = Callable[[Target], Awaitable[list[str]]]
Lookup = Callable[[Target], list[str]]
MAX_LOOKUPS = 16


async def resolved(target: Target) -> list[str]:
    """Return the addresses of a target, from the resolver of the system. Raises `OSError`."""
    if target.address is not None:
        return [str(target.address)]
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    return [str(each[4][0]) for each in found]


def resolved_here(target: Target) -> list[str]:
    """Return the addresses of a target, blocking the current thread. Raises `OSError`."""
    if target.address is not None:
        return [str(target.address)]
    found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    return [str(each[4][0]) for each in found]


class CheckedResolver:
    """Resolver that returns addresses only if the egress policy permits all of them.

    Each resolver has separate threads, and runs one lookup per host at a time. Slow name servers of
    one host therefore delay neither other hosts nor other resolvers. With `tls_to_public`, public
    addresses are permitted for https only.
    """

    def __init__(
        self, egress: Egress, *, tls_to_public: bool = False, lookup: Lookup = resolved_here
    ) -> None:
        self._egress = egress
        self._tls_to_public = tls_to_public
        self._lookup = lookup
        self._threads = ThreadPoolExecutor(MAX_LOOKUPS, "resolve")
        self._lookups: dict[str, asyncio.Future[list[str]]] = {}

    async def addresses(self, target: Target, *, operator_named: bool) -> list[str]:
        """Return the checked addresses of a target. Raises `EgressError`."""
        self._egress.check_written(target, named=operator_named)
        try:
            found = await self._resolved(target)
        except OSError as error:
            name = type(error).__name__
            raise EgressError(f"its host name cannot be resolved ({name}); check it") from error
        except UnicodeError as error:
            raise EgressError("its host name is invalid; correct it") from error
        allowed = self._egress.check_addresses(target, found, named=operator_named)
        if self._tls_to_public and target.scheme == "http" and any(map(_is_public, allowed)):
            raise EgressError(
                "its address is public, so encryption is required; use https, or syslog+tls"
            )
        return allowed

    def close(self) -> None:
        """Stop the threads. Lookups that have not started are cancelled."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _resolved(self, target: Target) -> list[str]:
        if target.address is not None:
            return [str(target.address)]
        lookup = self._lookups.get(target.authority)
        if lookup is None:
            loop = asyncio.get_running_loop()
            lookup = loop.run_in_executor(self._threads, self._lookup, target)
            self._lookups[target.authority] = lookup
            lookup.add_done_callback(lambda done: self._forget(target, done))
        # A thread cannot be cancelled, so the lookup continues after its request is cancelled.
        return await asyncio.shield(lookup)

    def _forget(self, target: Target, lookup: "asyncio.Future[list[str]]") -> None:
        del self._lookups[target.authority]
        if not lookup.cancelled():
            lookup.exception()  # marks it as retrieved, even if no request waits any more


def _is_public(address: str) -> bool:
    return kind_of(ip_address(address.partition("%")[0])) == PUBLIC
