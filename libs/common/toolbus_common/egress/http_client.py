"""One HTTP exchange on a thread: with addresses that were checked, and over when its time is."""

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
    """A connection that is open already: the client looks nothing up any more.

    What is not done with it within `seconds` fails, however much arrived till then: a server that
    sends a byte now and then would otherwise be waited for without end. Raises `OSError`.
    """
    connection = http.client.HTTPConnection(target.host, target.port, timeout=seconds)
    opened = _opened(addresses, target.port, seconds)
    same = opened.dup()  # TLS takes the first one over
    cutting = threading.Timer(seconds, _cut, (same,))
    cutting.daemon = True
    try:
        cutting.start()
        if target.scheme == "https":
            connection.default_port = http.client.HTTPS_PORT
            opened = tls.context.wrap_socket(opened, server_hostname=target.host)
        connection.sock, connection.auto_open = opened, 0
        yield connection
    finally:
        cutting.cancel()
        connection.close()
        opened.close()
        same.close()


def path_of(url: str) -> str:
    """What of a URL is asked for at its host."""
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _opened(addresses: Sequence[str], port: int, seconds: float) -> socket.socket:
    failure = OSError("no address")
    for address in addresses:
        try:
            return socket.create_connection((address, port), seconds)
        except OSError as error:
            failure = error
    raise failure


def _cut(opened: socket.socket) -> None:
    with suppress(OSError):
        opened.shutdown(socket.SHUT_RDWR)
