"""A tunnel through an HTTP proxy (CONNECT), up to the first byte that belongs to the server."""

import asyncio
import re
import socket

from toolbus_common.egress import EgressError, Target
from toolbus_common.egress.proxies import Proxy

LARGEST_HEAD = 16 * 1024
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")


async def tunnelled(opened: socket.socket, target: Target, proxy: Proxy) -> None:
    """Have the proxy connect to the target. Raises `EgressError` or `OSError`, and closes then."""
    loop = asyncio.get_running_loop()
    place = target.authority.encode()
    try:
        await loop.sock_sendall(
            opened,
            b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (place, place, proxy.authorization),
        )
        _check_status(await _head(opened))
    except BaseException:
        opened.close()
        raise


def _check_status(head: bytes) -> None:
    status = _STATUS.match(head)
    if status is None:
        raise EgressError("its proxy answered with no HTTP; mend proxy")
    if status[1] != b"200":
        raise EgressError(
            f"its proxy refused the tunnel with HTTP {status[1].decode()}; ask who runs it"
        )


async def _head(opened: socket.socket) -> bytes:
    """Read to the end of the head and no further: what follows is TLS."""
    loop = asyncio.get_running_loop()
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = await loop.sock_recv(opened, 1)
        if not piece or len(head) >= LARGEST_HEAD:
            raise EgressError("its proxy broke off; see whether it is the right one")
        head += piece
    return head
