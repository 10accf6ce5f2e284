"""HTTP client of the bridge: pooled connections, and requests that another thread can cancel."""

import select
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from threading import Event, Lock
from urllib.parse import urlsplit

from toolbus_cli.bridge.stdio import LONGEST
from toolbus_cli.errors import CommandError
from toolbus_cli.http_client import connection_to

CONNECT_SECONDS = 10.0
IDLE_SECONDS = 30.0  # less than the idle timeout of servers
MAX_IDLE = 8


class UnreachedError(Exception):
    """The connection to the endpoint failed; the request was not sent."""


class LostError(Exception):
    """The connection closed before the response was complete."""


class Flight:
    """A pending request, which another thread can cancel."""

    def __init__(self, *, modern: bool = False) -> None:
        self.modern = modern
        self.sent = Event()
        self.given_up = False
        self._socket: socket.socket | None = None
        self._lock = Lock()

    def hold(self, held: socket.socket | None) -> None:
        """Set the socket that `give_up` closes."""
        with self._lock:
            self._socket = held
            self._close_if_given_up()

    def give_up(self) -> None:
        """Cancel the request: close its stream, which ends the thread that reads from it."""
        with self._lock:
            self.given_up = True
            self._close_if_given_up()

    def _close_if_given_up(self) -> None:
        if self.given_up and self._socket is not None:
            with suppress(OSError, ValueError):
                self._socket.shutdown(socket.SHUT_RDWR)


class Endpoint:
    """An HTTP endpoint with a pool of idle connections."""

    def __init__(self, url: str, server: str = "") -> None:
        try:
            target = urlsplit(url)
            usable = target.scheme in ("http", "https") and bool(target.hostname)
            usable = usable and target.port != 0
        except ValueError:  # from an invalid port or unbalanced brackets
            usable = False
        if not usable:
            raise CommandError(
                f"'{url}' is not an http:// or https:// URL; set the endpoint with --url."
            )
        path = target.path.rstrip("/") or "/mcp"
        self.path = f"{path}/{server}" if server else path
        self.url = f"{target.scheme}://{target.netloc.rpartition('@')[2]}{self.path}"
        self._target = target
        self._tls = ssl.create_default_context() if target.scheme == "https" else None
        self._idle: list[tuple[float, HTTPConnection]] = []
        self._lock = Lock()

    @contextmanager
    def exchange(
        self,
        verb: str,
        headers: dict[str, str],
        body: bytes | None,
        flight: Flight,
        seconds: float | None = None,
    ) -> Iterator[HTTPResponse]:
        """Send one request and yield its response. Raises `UnreachedError` or `LostError`."""
        connection = self._connected()
        flight.hold(connection.sock)
        response, kept = None, False
        try:
            connection.sock.settimeout(seconds)
            connection.request(verb, self.path, body, headers)
            flight.sent.set()
            response = connection.getresponse()
            yield response
            flight.hold(None)
            kept = self._keep(connection, response)
        except (OSError, ValueError, HTTPException) as error:
            raise LostError(_why(error)) from error
        finally:
            flight.sent.set()
            flight.hold(None)
            if not kept:
                connection.close()
                if response is not None:
                    response.close()

    def close(self) -> None:
        """Close the pooled connections."""
        with self._lock:
            while self._idle:
                self._idle.pop()[1].close()

    def _connected(self) -> HTTPConnection:
        while True:
            with self._lock:
                if not self._idle:
                    break
                since, kept = self._idle.pop()
            if time.monotonic() - since < IDLE_SECONDS and not _readable(kept.sock):
                return kept
            kept.close()
        return self._connect()

    def _connect(self) -> HTTPConnection:
        connection = connection_to(self._target, CONNECT_SECONDS, self._tls)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise UnreachedError(_why(error)) from error
        # A call may take long; TCP keep-alive detects a peer that disappeared.
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection

    def _keep(self, connection: HTTPConnection, response: HTTPResponse) -> bool:
        """Return a connection to the pool; False if it cannot be reused or the pool is full."""
        with self._lock:
            full = len(self._idle) >= MAX_IDLE
            if full or not response.isclosed() or response.will_close:
                return False
            self._idle.append((time.monotonic(), connection))
            return True


def events(response: HTTPResponse) -> Iterator[bytes]:
    """Yield the data of each server-sent event. Raises `LostError` if an event is too large.

    Source: WHATWG HTML, 9.2.6.
    """
    data: list[bytes] = []
    size = 0
    while line := response.readline(LONGEST + 1):
        size += len(line)
        if size > LONGEST:
            raise LostError("an event exceeds the size limit")
        line = line.rstrip(b"\r\n")
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif not line:
            if data:
                yield b"\n".join(data)
            data, size = [], 0


def whole(response: HTTPResponse) -> bytes:
    """Read and return the body. Raises `LostError` if it exceeds `LONGEST` bytes."""
    body = response.read(LONGEST + 1)
    if len(body) > LONGEST:
        raise LostError("the response exceeds the size limit")
    if not response.isclosed():
        response.read()
    return body


def _readable(held: socket.socket) -> bool:
    """Return whether an idle connection is readable, which means that the peer closed it."""
    poll = select.poll()  # `select` rejects descriptors from 1024 on
    poll.register(held, select.POLLIN)
    return bool(poll.poll(0))


def _why(error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(reason).rstrip(".")
