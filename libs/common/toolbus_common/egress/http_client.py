"""One blocking HTTP request to addresses that were checked, with a total deadline."""

import http.client
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from toolbus_common.egress.tls import Tls
from toolbus_common.egress.url_target import Target


@contextmanager
def exchange(
    target: Target, addresses: Sequence[str], tls: Tls, seconds: float
) -> Iterator[http.client.HTTPConnection]:
    """Yield a connection that is open already, so that the client resolves no name again.

    The connection is shut down after `seconds`, however much has arrived: otherwise a server that
    sends single bytes could hold it without end. Raises `OSError`.
    """
    connection = http.client.HTTPConnection(target.host, target.port, timeout=seconds)
    sock = _connect(addresses, target.port, seconds)
    duplicate = sock.dup()  # TLS takes over the original
    watchdog = threading.Timer(seconds, _shut_down, (duplicate,))
    watchdog.daemon = True
    try:
        watchdog.start()
        if target.scheme == "https":
            connection.default_port = http.client.HTTPS_PORT
            sock = tls.context.wrap_socket(sock, server_hostname=target.host)
        connection.sock, connection.auto_open = sock, 0
        yield connection
    finally:
        watchdog.cancel()
        connection.close()
        sock.close()
        duplicate.close()


def path_of(url: str) -> str:
    """Return path and query of a URL."""
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _connect(addresses: Sequence[str], port: int, seconds: float) -> socket.socket:
    failure = OSError("no address")
    for address in addresses:
        try:
            return socket.create_connection((address, port), seconds)
        except OSError as error:
            failure = error
    raise failure


def _shut_down(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
