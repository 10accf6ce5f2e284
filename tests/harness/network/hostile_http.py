"""Servers that violate the rules of HTTP, and a client for control traffic to them."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle

from harness.network.tcp_servers import served
from toolbus_common.egress import Allowed, Egress, Target
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.http_messages import HttpRequest, HttpResponse
from toolbus_common.egress.resolver import CheckedResolver
from toolbus_common.egress.tls import SYSTEMS, Tls

BOUND = 60.0  # timeout of a failed run in seconds
AT_LOOPBACK = Egress(Allowed.of("127.0.0.0/8"))
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


class Peer:
    """A server that sends the given bytes, then further bytes without end.

    It records the bytes that it reads. If `drips` is set, it sends single bytes slowly until its
    client closes the connection.
    """

    def __init__(self, answer: bytes = OK, *endless: bytes, drips: bool = False) -> None:
        self.answer = answer
        self.endless = endless
        self.drips = drips
        self.heads: list[bytes] = []
        self.certificates: list[bytes | None] = []
        self.closed = asyncio.Event()

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Respond to one request."""
        try:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            secure = writer.get_extra_info("ssl_object")
            self.certificates.append(secure and secure.getpeercert(binary_form=True))
            writer.write(self.answer)
            for piece in cycle(self.endless):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            while self.drips and not reader.at_eof():
                writer.write(b"1")
                await writer.drain()
                await asyncio.sleep(0.01)
            await writer.drain()
        finally:
            self.closed.set()


@asynccontextmanager
async def peer(
    answer: bytes = OK,
    *endless: bytes,
    drips: bool = False,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[tuple[Peer, str]]:
    """Run a peer.

    Yield the peer and its URL; only `client` can resolve the host name in the URL.
    """
    made = Peer(answer, *endless, drips=drips)
    async with asyncio.timeout(BOUND), served(made.meet, context=context) as port:
        yield made, f"{'https' if context else 'http'}://peer.example:{port}/path?q=1"


def client(
    *addresses: str,
    egress: Egress = AT_LOOPBACK,
    tls: Tls = SYSTEMS,
    max_in_progress: int = 0,
    max_per_host: int = 16,
) -> HttpClient:
    """Return a client that resolves all names to these addresses."""
    found = list(addresses or ["127.0.0.1"])

    def lookup(_target: Target) -> list[str]:
        return found

    resolver = CheckedResolver(egress, lookup=lookup)
    return HttpClient(resolver, tls, max_in_progress=max_in_progress, max_per_host=max_per_host)


async def got(url: str, *, seconds: float = BOUND, cut: bool = False) -> HttpResponse:
    """Send a request with limits that a test can reach, and return its response."""
    request = HttpRequest("GET", url, seconds=seconds, max_bytes=100_000, cut=cut)
    return await client().send(request)
