"""Server built on grpclib, with reflection in v1 only and a health service.

Usage: `python -m harness.apis.grpclib_server PORT`. A book called "unwell" makes it unhealthy.
"""

import asyncio
import sys
from typing import Any

from grpclib.const import Cardinality, Handler
from grpclib.health.check import ServiceStatus
from grpclib.health.service import Health
from grpclib.reflection.service import ServerReflection
from grpclib.server import Server

from harness.apis.grpc_shop import Book


class Shop:
    """The service. It echoes the request."""

    def __init__(self) -> None:
        self.status = ServiceStatus()
        self.status.set(True)

    async def echo(self, stream: Any) -> None:
        """Return the request."""
        book = await stream.recv_message()
        self.status.set(book.title != "unwell")
        await stream.send_message(book)

    def __mapping__(self) -> dict[str, Handler]:
        return {"/shop.Shop/Echo": Handler(self.echo, Cardinality.UNARY_UNARY, Book, Book)}


async def serve(port: int) -> None:
    """Serve until the process is killed."""
    shop = Shop()
    *services, _old = ServerReflection.extend([shop])
    server = Server([*services, Health({shop: [shop.status]})])
    await server.start("127.0.0.1", port)
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
