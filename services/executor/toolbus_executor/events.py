"""Server-sent events, read piece by piece with a bound on what one event may hold."""

from collections.abc import Iterator

from toolbus_common.errors import UpstreamFaultError

LARGEST_EVENT = 7 * 1024 * 1024
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
        self.name = ""  # of the event given last
        self.last_id = b""
        self.retry = 0.0  # seconds to wait before coming back; 0 if the server did not say

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The data of each event this piece completes. Raises `UpstreamFaultError` if too large."""
        self._size += len(piece)
        if self._size > LARGEST_EVENT:
            raise UpstreamFaultError(f"The upstream's event exceeds {LARGEST_EVENT} bytes.")
        if b"\n" not in piece:
            self._rest.append(piece)
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
