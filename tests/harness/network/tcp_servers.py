"""TCP servers in the test process. They close all connections when they end."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Meet = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
TURNS = 20  # turns of the event loop; a connection reaches its handler after four
GONE = (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)


@asynccontextmanager
async def served(
    meet: Meet, host: str = "127.0.0.1", port: int = 0, context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Listen until the context ends. Return the port."""
    meetings: set[asyncio.Task[None]] = set()

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        meetings.add(asyncio.get_running_loop().create_task(_met(meet, reader, writer)))

    server = await asyncio.start_server(accepted, host, port, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for _ in range(TURNS):  # accepted connections reach their handler, and are cancelled
            await asyncio.sleep(0)
        for meeting in meetings:
            meeting.cancel()
        await asyncio.gather(*meetings, return_exceptions=True)
        await asyncio.sleep(0)  # aborted connections close their sockets
        await server.wait_closed()


async def _met(meet: Meet, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async with closed_after(writer):
        with suppress(*GONE):
            await meet(reader, writer)


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
