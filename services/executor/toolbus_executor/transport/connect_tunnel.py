"""Tunnel to a server through an HTTP proxy (CONNECT)."""

import asyncio
import re
import socket

from toolbus_common.egress import EgressError, Target
from toolbus_executor.transport.proxies import Proxy

LARGEST_HEAD = 16 * 1024
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")


async def open_tunnel(connection: socket.socket, target: Target, proxy: Proxy) -> None:
    """Request the tunnel from the proxy. The socket then leads to the target.

    Raises:
        EgressError: the proxy rejected the tunnel, or its reply is not HTTP. The socket is closed.
        OSError: the connection broke. The socket is closed.

    """
    loop = asyncio.get_running_loop()
    authority = target.authority.encode()
    try:
        await loop.sock_sendall(
            connection,
            b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b\r\n"
            % (authority, authority, proxy.authorization),
        )
        _check_status(await _head(connection))
    except BaseException:
        connection.close()
        raise


def _check_status(head: bytes) -> None:
    status = _STATUS.match(head)
    if status is None:
        raise EgressError("its proxy did not reply with HTTP; correct the server's proxy")
    if status[1] != b"200":
        raise EgressError(
            f"its proxy rejected the tunnel with HTTP {status[1].decode()}; ask its operator"
        )


async def _head(connection: socket.socket) -> bytes:
    """Return the head of the reply. No byte after it is read, because TLS data follows."""
    loop = asyncio.get_running_loop()
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = await loop.sock_recv(connection, 1)
        if not byte or len(head) >= LARGEST_HEAD:
            raise EgressError("its proxy closed the connection; check the server's proxy")
        head += byte
    return head
