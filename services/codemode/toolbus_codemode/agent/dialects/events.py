"""Event streams: the data of complete events, and events to write."""

import re
from collections.abc import Iterator

from toolbus_codemode.agent.dialects.base import Json, encode

_BOUNDARY = re.compile(rb"\r?\n\r?\n")
DONE = b"[DONE]"


def data_of(part: bytes) -> Iterator[bytes]:
    """Yield the data of each of several complete events; comments have none."""
    for event in _BOUNDARY.split(part):
        lines = [line[5:].lstrip(b" ") for line in event.splitlines() if line[:5] == b"data:"]
        if lines:
            yield b"\n".join(lines)


def named(event: Json) -> bytes:
    """Return an event whose name is its `type`."""
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), encode(event))


def unnamed(event: Json) -> bytes:
    """Return an event without a name."""
    return b"data: %b\n\n" % encode(event)
