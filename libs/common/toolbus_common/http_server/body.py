"""Read a request's body: the whole of it, or an error."""

from collections.abc import Awaitable, Callable
from typing import Any

Receive = Callable[[], Awaitable[dict[str, Any]]]


class CutShortError(Exception):
    """The client closed the connection before its request was whole."""


class BodyTooLargeError(Exception):
    """The body exceeds the limit of whoever reads it."""


async def read_body(receive: Receive, largest: int) -> bytes:
    """Return the whole body. The server bounds how long it may take (`Limits.body_seconds`).

    Raises:
        CutShortError: the connection closed first; nothing of the request may be acted on.
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
    """Stand in for `receive` once a body has been read."""
    return {"type": "http.request", "body": b"", "more_body": False}
