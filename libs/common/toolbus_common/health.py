"""A process's own health endpoint, for probes and Prometheus: /healthz, /readyz, /metrics."""

import asyncio
import json
from collections.abc import Callable, Iterable

from toolbus_common.metrics import ROOM_READY, exposition
from toolbus_common.room import Room

LONGEST_HEAD = 8192
READ_SECONDS = 5.0

Answer = tuple[int, str, bytes]


def answer(path: str, rooms: Iterable[Room]) -> Answer:
    """Status, content type and body for a path. Ready means: every room here can do its work."""
    if path == "/healthz":
        return 200, "application/json", b'{"alive":true}'
    if path == "/readyz":
        told = [room.status() for room in rooms]
        body = json.dumps(
            {status.room: status.reason or "ready" for status in told}, sort_keys=True
        )
        ready = all(status.ready for status in told)
        return (200 if ready else 503), "application/json", body.encode()
    if path == "/metrics":
        for room in rooms:
            ROOM_READY.labels(room.name).set(room.status().ready)
        return 200, "text/plain; version=0.0.4; charset=utf-8", exposition()
    return 404, "application/json", b'{"error":"try /healthz, /readyz or /metrics"}'


async def serve(port: int, rooms: Callable[[], Iterable[Room]]) -> asyncio.Server:
    """Answer on all interfaces: a probe comes from outside the container."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(READ_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode("ascii", "replace")
            status, content_type, body = answer(path, rooms())
            writer.write(
                f"HTTP/1.1 {status} {'OK' if status == 200 else 'No'}\r\n"  # noqa: PLR2004
                f"content-type: {content_type}\r\ncontent-length: {len(body)}\r\n"
                "connection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
        except (OSError, TimeoutError, IndexError, asyncio.IncompleteReadError, ValueError):
            pass  # a probe that talks nonsense or goes away is answered by closing
        except asyncio.LimitOverrunError:
            pass
        finally:
            writer.close()

    return await asyncio.start_server(connection, "0.0.0.0", port, limit=LONGEST_HEAD)  # noqa: S104
