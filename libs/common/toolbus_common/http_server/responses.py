"""Responses that a listener sends before an application receives the request."""

from typing import Any


def _closing(status: str, message: str, *more: str) -> bytes:
    lines = [
        f"HTTP/1.1 {status}",
        "content-type: text/plain; charset=utf-8",
        f"content-length: {len(message)}",
        *more,
        "connection: close",
    ]
    return "\r\n".join([*lines, "", message]).encode()


_TOO_MANY = "Too many connections are open; close idle ones or retry later."
BUSY = _closing("503 Service Unavailable", _TOO_MANY, "retry-after: 1")
MALFORMED = _closing("400 Bad Request", "This is not HTTP/1.1; the connection is closed.")
LARGE_HEAD = _closing(
    "431 Request Header Fields Too Large",
    "The headers, chunk extensions and trailers are too large; send fewer.",
)
SLOW_HEAD = _closing(
    "408 Request Timeout", "The request took too long to arrive; send it without pauses."
)
SLOW_BODY = _closing(
    "408 Request Timeout", "The body took too long to arrive; send it without pauses."
)


async def busy(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001
    """Reject a request through a proxy, because its client has too many running requests."""
    body = b"Too many requests of this client are in progress; retry later."
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", b"1"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
