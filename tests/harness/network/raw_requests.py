"""Single HTTP requests as bytes on a socket."""

import socket
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse

from harness.waits import PATIENCE


@dataclass(frozen=True)
class RawAnswer:
    """A response. Its status is 0 if the connection was closed without a response."""

    status: int
    body: bytes = b""
    content_type: str = ""


def exchange(
    port: int, request: bytes, patience: float = PATIENCE, *, whole: bool = True
) -> RawAnswer:
    """Send bytes, and read one response. Unless `whole` is set, close the sending direction.

    Raises `TimeoutError` if neither a response nor the end of the connection arrives.
    """
    with socket.create_connection(("127.0.0.1", port), patience) as connection:
        try:
            connection.sendall(request)
            if not whole:
                connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError, OSError):
            pass  # the server replied or closed the connection before it received all bytes
        method = request[:5].partition(b" ")[0].decode("latin-1")
        response = HTTPResponse(connection, method=method)
        try:
            response.begin()
            kind = response.getheader("content-type", "")
            ends = "event-stream" not in kind
            return RawAnswer(response.status, response.read() if ends else b"", kind)
        except (HTTPException, ConnectionResetError, ConnectionAbortedError):
            return RawAnswer(0)


def request_bytes(path: str, method: str = "GET", body: bytes = b"", /, **headers: str) -> bytes:
    """Return a request. `Host` is added unless it is passed."""
    fields = {"Host": "127.0.0.1", **{name.replace("_", "-"): v for name, v in headers.items()}}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
