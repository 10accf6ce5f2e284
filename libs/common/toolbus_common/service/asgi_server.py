"""ASGI server inside a service process. The process itself handles signals."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from toolbus_common.http_server.acceptor import Handshake
from toolbus_common.http_server.limits import Limits
from toolbus_common.http_server.listener import PLAIN, Listener

BACKLOG = 2048


class NotServedError(Exception):
    """The server cannot listen on its address."""


@asynccontextmanager
async def serving(
    app: Any,
    name: str,
    host: str,
    port: int,
    limits: Limits,
    drain_seconds: float,
    handshake: Handshake = PLAIN,
) -> AsyncIterator[Listener]:
    """Serve an ASGI application until the context ends. `name` is the server's label in metrics.

    At the end, new connections are rejected, and requests in progress get up to `drain_seconds` for
    their responses.

    Raises:
        NotServedError: the server cannot listen on the address, usually because the port is in use.

    """
    listener = Listener(app, name, limits, handshake)
    try:
        await listener.open(host, port, BACKLOG)
    except OSError as error:
        raise NotServedError from error
    try:
        yield listener
    finally:
        await listener.stop_accepting()
        await listener.end(drain_seconds)
