"""Resolve a host to its addresses, once per connection."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

from toolbus_common.egress.url_target import Target

Resolve = Callable[[Target], Awaitable[list[str]]]


async def resolved(target: Target) -> list[str]:
    """Return the addresses of a target from the system's resolver. Raises `OSError`."""
    if target.address is not None:
        return [str(target.address)]
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    return [str(each[4][0]) for each in found]


def resolved_here(target: Target) -> list[str]:
    """Return the same, blocking the current thread. Raises `OSError`."""
    if target.address is not None:
        return [str(target.address)]
    found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    return [str(each[4][0]) for each in found]
