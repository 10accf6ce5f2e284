"""Read a request's body: all of it, or raise an error."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class CutShortError(Exception):
    """The client closed the connection before its request was complete."""


class BodyTooLargeError(Exception):
    """The body exceeds the reader's limit."""


async def read_body(receive: Receive, largest: int) -> bytes:
    """Return the whole body. The server limits how long that may take (`Limits.body_seconds`).

    Raises:
        CutShortError: the connection closed first; the request must not be processed.
        BodyTooLargeError: it exceeds `largest` bytes.

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
    """Return whether the head of a request says that a body follows."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 \t"))
        for name, value in scope["headers"]
    )


async def receive_nothing() -> dict[str, Any]:
    """Replace `receive` once a body has been read."""
    return {"type": "http.request", "body": b"", "more_body": False}
