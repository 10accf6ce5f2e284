"""Server-sent events (WHATWG HTML, section 9.2) as translations write them."""

from collections.abc import Iterator
from typing import Any

from toolbus_executor.providers.translation.body import encode

DONE_DATA = b"[DONE]"  # ends a stream of the chat completions API
DONE = b"data: [DONE]\n\n"
CUT = "The provider's stream ended early. Repeat the request."


def unnamed(payload: Any) -> bytes:
    """Return one event without a name."""
    return b"data: " + encode(payload) + b"\n\n"


def named(payload: dict[str, Any]) -> bytes:
    """Return one event whose name is the field `type` of its data."""
    name: str = payload["type"]
    return b"event: " + name.encode() + b"\ndata: " + encode(payload) + b"\n\n"


def events(stream: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the data of each event that this module has written."""
    for part in stream.split(b"\n\n"):
        head, found, data = part.partition(b"data: ")
        if found:
            yield head[7:-1].decode(), data
