"""A blocking HTTP request ends at its deadline, even if single bytes keep arriving."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext

import pytest

from harness.oauth.certificates import Authority
from toolbus_common.egress import target_of
from toolbus_common.egress.http_client import open_connection
from toolbus_common.egress.tls import SYSTEMS, Tls

DRIPS = 400  # of 50 ms each: a client that waits for all of them gets the whole body
HEAD = b"HTTP/1.1 200 OK\r\nX-Slow: "
BODY = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % DRIPS


@contextmanager
def dripping(beginning: bytes, wrap: Callable[[socket.socket], socket.socket]) -> Iterator[int]:
    """Run a server that responds to one request without ever being silent for long."""

    def serve() -> None:
        with suppress(OSError), wrap(listening.accept()[0]) as opened:
            opened.recv(65536)
            opened.sendall(beginning)
            for _ in range(DRIPS):
                opened.sendall(b"x")
                time.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


@pytest.mark.parametrize("beginning", [HEAD, BODY])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_dripping_server_is_abandoned_at_the_deadline(
    scheme: str, beginning: bytes, tmp_path: Path
) -> None:
    authority, tls = Authority(tmp_path), SYSTEMS
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.vouched("localhost"))
    if scheme == "https":
        tls = Tls(ca=authority.ca)

    def wrap(opened: socket.socket) -> socket.socket:
        return context.wrap_socket(opened, server_side=True) if scheme == "https" else opened

    with dripping(beginning, wrap) as port:
        target = target_of(f"{scheme}://localhost:{port}/")
        with open_connection(target, ["127.0.0.1"], tls, 2.0) as connection:
            connection.request("GET", "/")
            assert _arrived(connection) < DRIPS


def _arrived(connection: HTTPConnection) -> int:
    """Return how many pieces arrived before the end."""
    try:
        answer = connection.getresponse()
        return len(answer.headers.get("x-slow", "") or answer.read())
    except IncompleteRead as error:
        return len(error.partial)
    except OSError:
        return 0
