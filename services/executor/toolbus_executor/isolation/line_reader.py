"""Reader of a process's output lines.

A line that is too large for memory is stored while it arrives.
"""

from collections.abc import Callable

import msgspec

from toolbus_common.errors import ToolbusError
from toolbus_executor.results.large.spill import SpillBuffer
from toolbus_executor.results.large.spill_registry import SpillRegistry

LONGEST_LINE = 7 * 1024 * 1024
LONGEST_HELD = 6 * 1024 * 1024
_INTERNAL_ERROR = -32603


class TooLongError(Exception):
    """A line is longer than the limit."""


class LineReader:
    """Passes each complete line to `on_line`.

    For a line with stored parts, `on_line` receives the text without these parts.
    """

    def __init__(self, on_line: Callable[[bytes], None], spills: SpillRegistry | None) -> None:
        self._on_line = on_line
        self._spills = spills
        self._rest: list[bytes] = []  # pieces of an unfinished line
        self._size = 0
        self._spill: SpillBuffer | None = None

    async def feed(self, piece: bytes) -> None:
        """Read a piece of the output.

        Raises:
            TooLongError: a line exceeds the limit, and long lines cannot be stored.
            ToolbusError: a long line could not be stored.

        """
        if self._spill is not None and self._spills is not None:
            piece = await self._feed_on(self._spill, self._spills, piece)
        *lines, rest = piece.split(b"\n")
        for line in lines:
            self._on_line(b"".join((*self._rest, line)) if self._rest else line)
            self._rest, self._size = [], 0
        if rest:
            self._rest.append(rest)
            self._size += len(rest)
            if self._size > LONGEST_HELD:
                await self._overflow()

    def give_up(self) -> None:
        """Discard the unfinished line."""
        if self._spill is not None and self._spills is not None:
            self._spills.abandon(self._spill)
            self._spill = None

    async def _overflow(self) -> None:
        if self._spills is None:
            if self._size > LONGEST_LINE:
                raise TooLongError(f"it wrote a line of more than {LONGEST_LINE} bytes")
            return
        parts, self._rest, self._size = self._rest, [], 0
        self._spill = self._spills.begin()
        self._spill.goes_on = True  # the end of the line may contain the request's id
        for part in parts:
            self._spill.feed(part)
            await self._spill.service()

    async def _feed_on(self, spill: SpillBuffer, spills: SpillRegistry, piece: bytes) -> bytes:
        """Store more of a long line, and return the data after the end of the line."""
        line, newline, rest = piece.partition(b"\n")
        spill.feed(line)
        await spill.service()
        if not newline:
            return b""
        self._spill = None
        try:
            text = await spills.ended(spill)
        except ToolbusError as error:
            text = _error_reply(spill.rest, error)
        if text:
            self._on_line(text)
        return rest


class _Identified(msgspec.Struct):
    id: int | str


def _error_reply(rest: bytes, error: ToolbusError) -> bytes:
    """Return an error response in place of a reply that could not be stored.

    The response is empty if the stored part `rest` contains no request id.
    """
    try:
        number = msgspec.json.decode(rest, type=_Identified).id
    except msgspec.DecodeError:
        return b""
    text = {"code": _INTERNAL_ERROR, "message": error.reason}
    return msgspec.json.encode({"jsonrpc": "2.0", "id": number, "error": text})
