"""TCP servers in the test process. They close all connections when they end."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from toolbus_common.object_storage.tcp_listener import listening

Meet = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
TURNS = 20  # turns of the event loop; a connection reaches its handler after four
GONE = (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)


@asynccontextmanager
async def served(
    meet: Meet, host: str = "127.0.0.1", port: int = 0, context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Listen until the context ends. Return the port."""

    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(*GONE):
            await meet(reader, writer)

    async with listening(met, host, port, context=context) as opened:
        try:
            yield opened
        finally:
            for _ in range(TURNS):  # accepted connections reach their handler
                await asyncio.sleep(0)


@asynccontextmanager
async def closed_after(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    """Close a connection completely at the end of the context, even after an error."""
    try:
        yield
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except GONE:
            pass
        finally:
            writer.transport.abort()  # if this task was cancelled while data was unread
