"""Proxy on the loopback through which the object-store library connects.

The library resolves names and connects by itself. Through this proxy it reaches one store only,
at addresses that the egress policy allows. TLS stays between library and store.
"""

import asyncio
import socket
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from hmac import compare_digest
from secrets import token_hex

from toolbus_common.concurrency import end
from toolbus_common.egress import EgressError
from toolbus_common.egress.connect_request import ConnectRequest, NoRequestError, parse_request
from toolbus_common.egress.resolver import CheckedResolver
from toolbus_common.object_storage.tcp_listener import listening

LARGEST_HEAD = 32 * 1024
LARGEST_RESPONSE = 1 << 20  # bytes from the store in one connection, TLS handshake included
CONNECT_SECONDS = 3.0  # to an address, if there is another address to try
_CHUNK = 64 * 1024
_USER = "toolbus"
_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_REJECTED = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class StoreProxy:
    """Proxy to one authority (host:port).

    `problem` is the reason why the last connection was rejected or failed, as a clause. After the
    first byte of a response, `problem` is set only if the response is too large.
    """

    def __init__(
        self,
        resolver: CheckedResolver,
        authority: str,
        *,
        operator_named: bool,
        largest: int = LARGEST_RESPONSE,
    ) -> None:
        self.problem = ""
        self._largest = largest
        self._resolver = resolver
        self._authority = authority
        self._operator_named = operator_named
        self._password = token_hex(16)  # other programs of the machine reach the port too

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Listen while the context is entered; yield the proxy's URL with its credentials."""
        async with listening(self._serve, limit=LARGEST_HEAD) as port:
            yield f"http://{_USER}:{self._password}@127.0.0.1:{port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if self._is_authenticated(head):
                await self._serve_library(head, (reader, writer))
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client is another program, or the library closed the connection

    async def _serve_library(self, head: bytes, client: Pair) -> None:
        try:
            request = parse_request(head)
            store = await self._connected(request)
        except EgressError as error:
            self.problem = str(error)
            client[1].write(_REJECTED)
        except OSError as error:
            self.problem = f"it is unreachable ({type(error).__name__})"
        except NoRequestError:
            self.problem = "the request to it is not valid"
        else:
            with store:
                await self._forward(request, client, store)

    def _is_authenticated(self, head: bytes) -> bool:
        expected = b"basic " + b64encode(f"{_USER}:{self._password}".encode())
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"proxy-authorization":
                kind, _, secret = value.strip().partition(b" ")
                return compare_digest(kind.lower() + b" " + secret, expected)
        return False

    async def _connected(self, request: ConnectRequest) -> socket.socket:
        """Connect to a checked address. Raises `EgressError` or `OSError`."""
        if request.target.authority != self._authority:
            raise EgressError("its client requested a host other than its endpoint")
        addresses = await self._resolver.addresses(
            request.target, operator_named=self._operator_named
        )
        return await _connected(addresses, request.target.port)

    async def _forward(self, request: ConnectRequest, client: Pair, store: socket.socket) -> None:
        """Pass bytes in both directions."""
        first = b"" if request.is_tunnel else request.onward()
        if request.is_tunnel:
            client[1].write(_ESTABLISHED)
        upload = asyncio.create_task(_pass_request(first, client[0], store))
        try:
            await self._pass_response(store, client[1])
            await upload
        finally:
            await end(upload)

    async def _pass_response(self, store: socket.socket, writer: asyncio.StreamWriter) -> None:
        total = 0
        while piece := await self._received(store, total):
            total += len(piece)
            if total > self._largest:
                self.problem = f"its response is larger than {self._largest} bytes"
                writer.transport.abort()
                return
            writer.write(piece)
            await writer.drain()
        writer.write_eof()

    async def _received(self, store: socket.socket, total: int) -> bytes:
        try:
            return await asyncio.get_running_loop().sock_recv(store, _CHUNK)
        except OSError as error:
            if not total:
                self.problem = f"it closed the connection ({type(error).__name__})"
            return b""


async def _connected(addresses: list[str], port: int) -> socket.socket:
    """Connect to the first address that accepts. Raises `OSError`."""
    *others, last = addresses
    for address in others:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(CONNECT_SECONDS):
                return await _opened(address, port)
    return await _opened(last, port)


async def _opened(address: str, port: int) -> socket.socket:
    """Return a connected socket. A stream would discard received bytes after a failed write."""
    store = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        store.settimeout(0)
        store.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(store, (address, port))
    except BaseException:
        store.close()
        raise
    return store


async def _pass_request(first: bytes, reader: asyncio.StreamReader, store: socket.socket) -> None:
    """Pass a request on, and read it to its end even if the store does not.

    Closing the connection earlier would reset it, and the library would lose the response.
    """
    loop, piece = asyncio.get_running_loop(), first
    with suppress(OSError):
        await loop.sock_sendall(store, piece)
        while piece := await reader.read(_CHUNK):
            await loop.sock_sendall(store, piece)
    with suppress(OSError):
        while await reader.read(_CHUNK):
            pass
