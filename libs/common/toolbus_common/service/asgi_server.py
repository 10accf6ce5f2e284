"""Serving an ASGI application inside a service's process, whose signals are its own business."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from toolbus_common.http_server.limits import Limits
from toolbus_common.http_server.listener import Listener

BACKLOG = 2048


class NotServedError(Exception):
    """It cannot listen there."""


@asynccontextmanager
async def serving(
    app: Any, name: str, host: str, port: int, limits: Limits, drain_seconds: float
) -> AsyncIterator[Listener]:
    """Serve while this is entered. `name` tells this listener from others in the metrics.

    On leaving, requests under way are answered before the connections close; unless the caller
    has done so before, nothing new is accepted meanwhile.

    Raises:
        NotServedError: most likely the port is taken.

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
