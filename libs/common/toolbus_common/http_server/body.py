"""Reading of request bodies: the complete body or an error."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class CutShortError(Exception):
    """The client closed the connection before the request was complete."""


class BodyTooLargeError(Exception):
    """The body exceeds the maximum size that was passed to `read_body`."""


async def read_body(receive: Receive, largest: int) -> bytes:
    """Return the complete body. The server limits the duration (`Limits.body_seconds`).

    Raises:
        CutShortError: the connection was closed first. The request must not be processed.
        BodyTooLargeError: the body exceeds `largest` bytes.

    """
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise CutShortError
        body: bytes = message.get("body", b"")
        size += len(body)
        if size > largest:
            raise BodyTooLargeError
        if not message.get("more_body", False):
            return b"".join((*parts, body)) if parts else body
        parts.append(body)


def announces_body(scope: dict[str, Any]) -> bool:
    """Return whether the headers of a request announce a body."""
    for name, value in scope["headers"]:
        if name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 \t")):
            return True
    return False


async def receive_nothing() -> dict[str, Any]:
    """Return an empty body. Use it in place of `receive` after the body has been read."""
    return {"type": "http.request", "body": b"", "more_body": False}
