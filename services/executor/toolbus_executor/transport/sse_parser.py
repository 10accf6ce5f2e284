"""Server-sent events, read piece by piece with a bound on what one event may hold."""

from collections.abc import Iterator

from toolbus_common.errors import UpstreamFaultError
from toolbus_executor.results.large.spill import Spill
from toolbus_executor.results.large.spill_registry import Answering

LARGEST_EVENT = 7 * 1024 * 1024
LARGEST_HELD = 6 * 1024 * 1024  # bytes of an event, until it goes where large answers do
_FIELD = len(b"data:")
_LONGEST_ID = 1024
_LONGEST_RETRY = 60_000  # milliseconds


class EventReader:
    """Turns pieces of a stream into the data of its events.

    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6.
    """

    def __init__(self) -> None:
        self._rest: list[bytes] = []  # pieces of a line whose end has not come
        self._data: list[bytes] = []
        self._size = 0
        self._name = ""
        self.large: Answering | None = None
        self.spilled: Spill | None = None  # a whole event that was too large to give
        self._spill: Spill | None = None  # one whose line has not ended
        self.name = ""  # of the event given last
        self.last_id = b""
        self.retry = 0.0  # seconds to wait before coming back; 0 if the server did not say

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The data of each event this piece completes. Raises `UpstreamFaultError` if too large."""
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
                if data:  # MCP 2025-11-25 begins a stream with an empty event, for its id alone
                    yield data
            else:
                self._size = len(rest)

    def give_up(self) -> Spill | None:
        """What there is of an event too large to give, which nobody waits for any more."""
        spill, self._spill, self.spilled = self.spilled or self._spill, None, None
        return spill

    def _grow(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > LARGEST_EVENT:
            raise UpstreamFaultError(f"The upstream's event exceeds {LARGEST_EVENT} bytes.")

    def _hold(self, piece: bytes) -> None:
        """Keep a piece of a line whose end has not come."""
        self._rest.append(piece)
        if self._size > LARGEST_HELD and self.large is not None and not self._data:
            self._begin_spill(self.large)

    def _begin_spill(self, large: Answering) -> None:
        """Let a line of data go where large answers do, from its beginning."""
        parts, self._rest = self._rest, []
        first = b"".join(parts[:_FIELD])  # no part is empty, so the name of the field is in it
        if not first.startswith(b"data:"):
            raise UpstreamFaultError("The upstream's event has too long a line that is no data.")
        self._spill = large.begin()
        for part in (first[_FIELD:], *parts[_FIELD:]):  # never all at once
            self._spill.feed(part)

    def _feed_on(self, spill: Spill, piece: bytes) -> None:
        """More of such a line. Where it ends its event ends: messages are told in one line."""
        line, newline, _ = piece.partition(b"\n")
        spill.feed(line)
        if newline:
            self._spill, self.spilled = None, spill

    def restart(self) -> None:
        """A new connection: what was left of an event will come whole again."""
        self._rest, self._data, self._size, self._name = [], [], 0, ""

    def _note(self, field: bytes, value: bytes) -> None:
        value = value.removeprefix(b" ")
        if field == b"id" and len(value) <= _LONGEST_ID and b"\0" not in value:
            self.last_id = value
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        elif field == b"retry" and value.isdigit():
            self.retry = min(int(value[:9]), _LONGEST_RETRY) / 1000
