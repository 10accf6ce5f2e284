"""Proxy on the loopback through which the object-store library connects.

The library resolves names and connects by itself. Through this proxy it reaches one store only,
at addresses that the egress policy allows. TLS stays between library and store.
"""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from hmac import compare_digest
from secrets import token_hex

from toolbus_common.concurrency import end
from toolbus_common.egress import EgressError
from toolbus_common.egress.connect_request import ConnectRequest, NoRequestError, parse_request
from toolbus_common.egress.resolver import CheckedResolver

LARGEST_HEAD = 32 * 1024
LARGEST_RESPONSE = 1 << 20  # bytes from the store in one connection, TLS handshake included
CONNECT_SECONDS = 3.0  # to an address, if there is another one to try
_CHUNK = 64 * 1024
_USER = "toolbus"
_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_REJECTED = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class StoreProxy:
    """Proxy to one authority (host:port).

    `problem` is the reason why the last connection was rejected or failed, as a clause.
    """

    def __init__(self, resolver: CheckedResolver, authority: str, *, operator_named: bool) -> None:
        self.problem = ""
        self._resolver = resolver
        self._authority = authority
        self._operator_named = operator_named
        self._password = token_hex(16)  # other programs of the machine reach the port too
        self._connections: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Listen while the context is entered; yield the proxy's URL with its credentials."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=LARGEST_HEAD)
        try:
            port = server.sockets[0].getsockname()[1]
            yield f"http://{_USER}:{self._password}@127.0.0.1:{port}"
        finally:
            server.close()
            await end(*self._connections)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve((reader, writer)))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, client: Pair) -> None:
        try:
            head = await client[0].readuntil(b"\r\n\r\n")
            if self._is_authenticated(head):
                await self._forward(parse_request(head), client)
        except EgressError as error:
            self.problem = str(error)
            client[1].write(_REJECTED)
        except OSError as error:
            self.problem = f"it is unreachable ({type(error).__name__})"
        except (NoRequestError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            self.problem = "the request to it is not valid"
        finally:
            client[1].close()

    def _is_authenticated(self, head: bytes) -> bool:
        expected = b"basic " + b64encode(f"{_USER}:{self._password}".encode())
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"proxy-authorization":
                kind, _, secret = value.strip().partition(b" ")
                return compare_digest(kind.lower() + b" " + secret, expected)
        return False

    async def _forward(self, request: ConnectRequest, client: Pair) -> None:
        """Connect to a checked address and pass bytes in both directions."""
        if request.target.authority != self._authority:
            raise EgressError("its client requested another host, which is not its endpoint")
        addresses = await self._resolver.addresses(
            request.target, operator_named=self._operator_named
        )
        store = await _connected(addresses, request.target.port)
        try:
            if request.is_tunnel:
                client[1].write(_ESTABLISHED)
            else:
                store[1].write(request.onward())
            upload = asyncio.create_task(_pump(client[0], store[1]))
            try:
                await self._pass_response(store[0], client[1])
            finally:
                await end(upload)
        finally:
            store[1].transport.abort()

    async def _pass_response(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        total = 0
        while piece := await reader.read(_CHUNK):
            total += len(piece)
            if total > LARGEST_RESPONSE:
                self.problem = f"its response is larger than {LARGEST_RESPONSE} bytes"
                writer.transport.abort()
                return
            writer.write(piece)
            await writer.drain()


async def _connected(addresses: list[str], port: int) -> Pair:
    """Connect to the first address that accepts. Raises `OSError`."""
    *others, last = addresses
    for address in others:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(CONNECT_SECONDS):
                return await asyncio.open_connection(address, port)
    return await asyncio.open_connection(last, port)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(_CHUNK):
            writer.write(piece)
            await writer.drain()
