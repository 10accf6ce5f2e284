"""Incremental parser of server-sent events. The size of an event is limited."""

from collections.abc import Iterator

from toolbus_common.errors import UpstreamInvalidError
from toolbus_executor.results.large.spill import SpillBuffer
from toolbus_executor.results.large.spill_registry import MessageSpill

LARGEST_EVENT = 7 * 1024 * 1024
LARGEST_HELD = 6 * 1024 * 1024  # bytes; a larger event is spilled
_FIELD = len(b"data:")
_LONGEST_ID = 1024
_LONGEST_RETRY = 60_000  # milliseconds


class EventReader:
    """Parser that converts the pieces of a stream to the data of its events.

    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6.
    """

    def __init__(self) -> None:
        self._rest: list[bytes] = []  # pieces of an unfinished line
        self._data: list[bytes] = []
        self._size = 0
        self._name = ""
        self.large: MessageSpill | None = None
        self.spilled: SpillBuffer | None = None  # a complete event that was too large for memory
        self._spill: SpillBuffer | None = None  # an incomplete event that is too large for memory
        self.name = ""  # name of the last event
        self.last_id = b""
        self.retry = 0.0  # pause before reconnecting in seconds; 0 if the server sent none

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Yield the data of each completed event. Raises `UpstreamInvalidError`."""
        if self._spill is not None:
            self._feed_on(self._spill, piece)
            return
        self._grow(piece)
        if b"\n" not in piece:
            self._hold(piece)
            return
        *lines, rest = b"".join((*self._rest, piece)).split(b"\n")
        self._rest = [rest]
        for raw in lines:
            line = raw.rstrip(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif line:
                self._note(*line.partition(b":")[::2])
            elif self._data:
                data = b"\n".join(self._data)
                self._data, self._size = [], len(rest)
                self.name, self._name = self._name, ""
                # In MCP 2025-11-25 a stream begins with an event that has an id and no data.
                if data:
                    yield data
            else:
                self._size = len(rest)

    def give_up(self) -> SpillBuffer | None:
        """Return the buffer of a large event that was not processed. The caller must delete it."""
        spill, self._spill, self.spilled = self.spilled or self._spill, None, None
        return spill

    def _grow(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > LARGEST_EVENT:
            raise UpstreamInvalidError(f"The upstream's event exceeds {LARGEST_EVENT} bytes.")

    def _hold(self, piece: bytes) -> None:
        """Buffer a piece of an unfinished line."""
        self._rest.append(piece)
        large = self.large if self._size > LARGEST_HELD and not self._data else None
        if large is not None and large.spills is not None:
            self._begin_spill(large)

    def _begin_spill(self, large: MessageSpill) -> None:
        """Spill the current data line, including the part that was already buffered."""
        parts, self._rest = self._rest, []
        first = b"".join(parts[:_FIELD])  # no part is empty, so these include the field's name
        if not first.startswith(b"data:"):
            raise UpstreamInvalidError(
                "The upstream's event has a line that is too long and is not a data line."
            )
        self._spill = large.begin()
        for part in (first[_FIELD:], *parts[_FIELD:]):  # in pieces, to limit memory
            self._spill.feed(part)

    def _feed_on(self, spill: SpillBuffer, piece: bytes) -> None:
        """Store the next piece of a large event.

        The end of the line is the end of the event, because an MCP message has one line.
        """
        line, newline, _ = piece.partition(b"\n")
        spill.feed(line)
        if newline:
            self._spill, self.spilled = None, spill

    def restart(self) -> None:
        """Discard a partial event. A new connection sends it again from the beginning."""
        self._rest, self._data, self._size, self._name = [], [], 0, ""

    def _note(self, field: bytes, value: bytes) -> None:
        value = value.removeprefix(b" ")
        if field == b"id" and len(value) <= _LONGEST_ID and b"\0" not in value:
            self.last_id = value
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        elif field == b"retry" and value.isdigit():
            self.retry = min(int(value[:9]), _LONGEST_RETRY) / 1000
