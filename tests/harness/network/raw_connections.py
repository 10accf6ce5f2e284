"""HTTP as bytes on a socket, for requests that client libraries cannot send."""

import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from harness.waits import PATIENCE

HOST = b"Host: 127.0.0.1\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


@dataclass(frozen=True)
class RawAnswer:
    """A response with its complete body."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def closes(self) -> bool:
        """Whether the response says that the connection will be closed."""
        return self.headers.get(b"connection", b"").lower() == b"close"


class CutError(Exception):
    """The connection ended within a response. `partial` is set if a part of it had arrived."""

    def __init__(self, *, partial: bool) -> None:
        super().__init__("cut in an answer" if partial else "closed without an answer")
        self.partial = partial


class RawHttp:
    """A connection."""

    def __init__(self, address: str | int, source: str = "") -> None:
        target = urlsplit(address) if isinstance(address, str) else None
        where = (target.hostname, target.port) if target else ("127.0.0.1", address)
        own = (source, 0) if source else None
        self._socket = socket.create_connection(where, PATIENCE, own)
        self._received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self._socket.sendall(data)

    def flood(self, data: bytes, maximum: int) -> int:
        """Send up to `maximum` bytes, until the peer closes. Return the number of sent bytes."""
        sent = 0
        with suppress(ConnectionError):
            while sent < maximum:
                self._socket.sendall(data)
                sent += len(data)
        return sent

    def half_close(self) -> None:
        """Close only the sending direction."""
        self._socket.shutdown(socket.SHUT_WR)

    def answer(self) -> RawAnswer:
        """Read the next response. Raises `CutError` if the connection ends within it."""
        while b"\r\n\r\n" not in self._received:
            self._more()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        line, *lines = head.split(b"\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (each.partition(b":") for each in lines)
        }
        body = b""
        if headers.get(b"transfer-encoding") == b"chunked":
            while size := int(self._line(), 16):
                body += self._exactly(size)
                self._exactly(2)
            self._exactly(2)
        else:
            body = self._exactly(int(headers.get(b"content-length", b"0")))
        return RawAnswer(int(line.split(b" ")[1]), headers, body)

    def until(self, end: bytes) -> bytes:
        """Read to these bytes, and return all that was received."""
        while end not in self._received:
            self._more()
        return self._received

    def rest(self) -> bytes:
        """Return all bytes until the other side closes the connection."""
        with suppress(CutError):
            while True:
                self._more()
        return self._received

    def ended(self) -> bool:
        """Read until the peer closes the connection."""
        with suppress(ConnectionError):
            while self._socket.recv(65536):
                pass
        return True

    def _line(self) -> bytes:
        while b"\r\n" not in self._received:
            self._more()
        line, _, self._received = self._received.partition(b"\r\n")
        return line

    def _exactly(self, size: int) -> bytes:
        while len(self._received) < size:
            self._more()
        found, self._received = self._received[:size], self._received[size:]
        return found

    def _more(self) -> None:
        try:
            data = self._socket.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            raise CutError(partial=bool(self._received))
        self._received += data


class RawHttps(RawHttp):
    """A connection with TLS. `first` is sent before the handshake.

    Raises:
        OSError: the handshake failed.

    """

    def __init__(
        self,
        port: int,
        context: ssl.SSLContext,
        first: bytes = b"",
        name: str = "localhost",
        source: str = "",
    ) -> None:
        super().__init__(port, source)
        try:
            self._socket.sendall(first)
            self.tls = context.wrap_socket(self._socket, server_hostname=name)
        except OSError:
            self._socket.close()
            raise
        self._socket = self.tls

    @property
    def serial(self) -> str:
        """The serial number of the server's certificate."""
        return str((self.tls.getpeercert() or {})["serialNumber"])


def posting(path: str, body: bytes, *lines: str, length: int | None = None) -> bytes:
    """Return a POST request. `length` replaces the real Content-Length."""
    return request("POST", path, body, *lines, length=length)


def request(method: str, path: str, body: bytes, *lines: str, length: int | None = None) -> bytes:
    """Return a request with a Content-Length."""
    items = [f"Content-Length: {len(body) if length is None else length}", *lines]
    head = "".join(f"{line}\r\n" for line in items).encode()
    return b"%b %b HTTP/1.1\r\n%b%b\r\n%b" % (method.encode(), path.encode(), HOST, head, body)


def chunked(method: str, path: str, body: bytes, *lines: str, end: bytes = b"0\r\n\r\n") -> bytes:
    """Return a request with one chunk. Without its `end` the request is incomplete."""
    head = "".join(f"{line}\r\n" for line in lines).encode()
    start = b"%b %b HTTP/1.1\r\n%b%b%b\r\n" % (method.encode(), path.encode(), HOST, CHUNKED, head)
    return start + b"%x\r\n%b\r\n" % (len(body), body) + end
