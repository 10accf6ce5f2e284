"""Serve an ASGI application inside a service process, which handles its own signals."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from toolbus_common.http_server.limits import Limits
from toolbus_common.http_server.listener import Listener

BACKLOG = 2048


class NotServedError(Exception):
    """The listener cannot bind its address."""


@asynccontextmanager
async def serving(
    app: Any, name: str, host: str, port: int, limits: Limits, drain_seconds: float
) -> AsyncIterator[Listener]:
    """Serve while the context is entered. `name` labels this listener in the metrics.

    On leaving, requests in progress get their responses before the connections close, and new
    connections are rejected.

    Raises:
        NotServedError: the address cannot be bound, most likely because the port is taken.

    """
    listener = Listener(app, name, limits)
    try:
        await listener.open(host, port, BACKLOG)
    except OSError as error:
        raise NotServedError from error
    try:
        yield listener
    finally:
        await listener.stop_accepting(0.0)
        await listener.end(drain_seconds)
