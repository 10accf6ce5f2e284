"""Lines of a process's output, read in pieces; one too long to hold goes where large answers do."""

from collections.abc import Callable

import msgspec

from toolbus_common.errors import ToolbusError
from toolbus_executor.results.large.spill import Spill
from toolbus_executor.results.large.spill_registry import Spills

LONGEST_LINE = 7 * 1024 * 1024
LONGEST_HELD = 6 * 1024 * 1024
_INTERNAL_ERROR = -32603


class TooLongError(Exception):
    """A line is longer than any may be."""


class Lines:
    """Gives each line to `on_line`; of one that was too long what is left of it."""

    def __init__(self, on_line: Callable[[bytes], None], spills: Spills | None) -> None:
        self._on_line = on_line
        self._spills = spills
        self._rest: list[bytes] = []  # pieces of a line whose end has not come
        self._size = 0
        self._spill: Spill | None = None

    async def feed(self, piece: bytes) -> None:
        """Take a piece. Raises `TooLongError`, and `ToolbusError` of a line there is no end of."""
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
        """The line under way will not end."""
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
        self._spill.goes_on = True  # to the line's end, which says whose answer it is
        for part in parts:
            self._spill.feed(part)
            await self._spill.service()

    async def _feed_on(self, spill: Spill, spills: Spills, piece: bytes) -> bytes:
        """More of a line that is too long; what follows it."""
        line, newline, rest = piece.partition(b"\n")
        spill.feed(line)
        await spill.service()
        if not newline:
            return b""
        self._spill = None
        try:
            told = await spills.ended(spill)
        except ToolbusError as error:
            told = _refusal(spill.rest, error)
        if told:
            self._on_line(told)
        return rest


class _Identified(msgspec.Struct):
    id: int | str


def _refusal(rest: bytes, error: ToolbusError) -> bytes:
    """An error instead of an answer that could not be kept; empty where it answers nothing."""
    try:
        number = msgspec.json.decode(rest, type=_Identified).id
    except msgspec.DecodeError:
        return b""
    told = {"code": _INTERNAL_ERROR, "message": error.reason}
    return msgspec.json.encode({"jsonrpc": "2.0", "id": number, "error": told})
