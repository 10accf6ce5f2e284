"""Event streams in parts (WHATWG HTML, section 9.2): their headers, and complete events."""

_ENDS = (b"\n\n", b"\r\n\r\n")
_LONGEST_END = 4
# `no-store` and the header of nginx keep caches and proxies from holding events back.
HEADERS = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)


class EventSplitter:
    """Splits a stream, received in pieces of any size, after the last complete event.

    `rest` is the beginning of an incomplete event.
    """

    __slots__ = ("rest",)

    def __init__(self) -> None:
        self.rest = bytearray()

    def feed(self, piece: bytes) -> bytes:
        """Return the complete events up to the end of this piece, and store the rest.

        Only new bytes are searched.
        """
        rest = self.rest
        if not rest and piece.endswith(_ENDS):
            return piece
        start = max(0, len(rest) + 1 - _LONGEST_END)  # the mark of an event's end may be split
        rest += piece
        end = max(at + len(mark) if (at := rest.rfind(mark, start)) >= 0 else 0 for mark in _ENDS)
        events = bytes(rest[:end])
        del rest[:end]
        return events

    def take_rest(self) -> bytes:
        """Remove and return the incomplete event."""
        rest, self.rest = bytes(self.rest), bytearray()
        return rest
