"""Serving an ASGI application inside a room's process, whose signals are its own business."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn


class NotServedError(Exception):
    """It cannot listen there."""


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(app: Any, host: str, port: int, **told: Any) -> AsyncIterator[int]:
    """Serve while this is entered; the port. `told` are further settings of uvicorn.

    On leaving, requests under way are answered before the connections close.

    Raises:
        NotServedError: most likely the port is taken.

    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="none",
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        **told,
    )
    server = _Server(config)
    task = asyncio.create_task(_served(server))
    while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    if task.done():
        raise NotServedError
    try:
        yield int(server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        await task


async def _served(server: uvicorn.Server) -> None:
    try:
        await server.serve()
    except SystemExit:  # uvicorn's way of saying that it could not begin
        return
