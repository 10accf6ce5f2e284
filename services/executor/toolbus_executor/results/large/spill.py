"""One answer that streams in: its large values are kept part by part, and the rest is gathered."""

import asyncio
import os
import secrets
from collections import deque
from collections.abc import Callable

from toolbus_common.errors import ToolbusError, UpstreamFaultError
from toolbus_executor.results.large.decoder import Decoding
from toolbus_executor.results.large.json_scanner import Kind, Scanner
from toolbus_executor.results.large.store import PART, Vault

MARK = "toolbus-kept-"  # begins what stands where a value was; nobody guesses what follows
BEGINNING = 2_000  # bytes shown of what was kept
LONGEST_STRUCK = 4096
MOST_WAITING = 4 << 20  # bytes that wait to be written, until the stream is held up


class Hole:
    """A large value of an answer, and where it is kept."""

    def __init__(self, kind: Kind, write: Callable[["Hole", bytes], None]) -> None:
        self.name = MARK + secrets.token_hex(16)
        self.mark = f'"{self.name}"'.encode()
        self.kind = kind
        self.prefix = secrets.token_hex(16)
        self.key = os.urandom(32)
        self.size = 0
        self.parts = 0
        self.taken = 0  # bytes of the allowance
        self.settled = False  # somebody was given its handle
        self.beginning = b""
        self.media = ""  # what its server says it is, else what it looks like
        self._write = write
        self._decoding = Decoding(kind)
        self._part = bytearray()

    def take(self, raw: bytes) -> None:
        """A piece, as it stands in JSON."""
        self.keep(self._decoding.feed(raw))

    def keep(self, value: bytes) -> None:
        """A piece, as it is kept."""
        if len(self.beginning) < BEGINNING:
            self.beginning = (self.beginning + value)[:BEGINNING]
        self.size += len(value)
        self._part += value
        while len(self._part) >= PART:
            self._write(self, bytes(self._part[:PART]))
            del self._part[:PART]

    def end(self) -> None:
        """The value is whole."""
        self.keep(self._decoding.end())
        if self._part:
            self._write(self, bytes(self._part))
            self._part.clear()
        self.media = self.media or _media(self.kind, self.beginning)

    async def removed(self, vault: Vault) -> None:
        """Remove what was kept, unless somebody was given its handle."""
        if not self.settled:
            self.settled = True  # once is enough
            vault.allowance.give_back(self.taken)
            await vault.forget(self.prefix, self.parts)


class Spill:
    """One answer. `flow` is told False when the stream must be held up, and True when it may go on.

    What `whole` says is to be kept as it comes, and not as JSON of a message.
    """

    def __init__(
        self,
        vault: Vault,
        largest: int,
        flow: Callable[[bool], None] | None = None,
        whole: Kind | None = None,
    ) -> None:
        self.holes: list[Hole] = []
        self.size = 0
        self.strike: Callable[[bytes], bytes] | None = None  # what must not be kept
        self._uncertain = b""  # may be the beginning of that
        self._vault = vault
        self._largest = largest
        self._flow = flow
        self._held_up = False
        self._scanner = Scanner(self._begin)
        self._whole = self._begin(whole) if whole is not None else None
        self._waiting: deque[tuple[Hole, int, bytes]] = deque()
        self._backlog = 0
        self._writing: asyncio.Task[None] | None = None
        self._fault: ToolbusError | None = None  # why nothing more is kept
        self.goes_on = False  # to the end, also where nothing is kept

    def feed(self, piece: bytes) -> None:
        """Take the next piece. Raises `ToolbusError`."""
        self.size += len(piece)
        if self.size > self._largest:
            raise UpstreamFaultError(
                f"The upstream's answer is too large: it exceeds {self._largest} bytes, the most "
                "its operator lets be kept; ask for less."
            )
        if self._whole is not None:
            self._whole.keep(self._struck(piece))
        else:
            self._scanner.feed(piece)
        if self._fault is not None and not self.goes_on:
            raise self._fault

    @property
    def rest(self) -> bytes:
        """What is left beside the large values."""
        return bytes(self._scanner.rest)

    @property
    def full(self) -> bool:
        """Whether more waits to be written than should."""
        return self._backlog > MOST_WAITING

    async def service(self) -> None:
        """Wait until less waits to be written."""
        if self.full and self._writing is not None:
            await self._writing

    async def ended(self) -> bytes:
        """The rest, once everything is kept. Raises `ToolbusError`."""
        if self._whole is not None:
            self._whole.keep(self._uncertain)
            self._whole.end()
        if self._writing is not None:
            await self._writing
        if self._fault is not None:
            raise self._fault
        return self.rest

    async def abandon(self) -> None:
        """Nobody will read what was kept."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        for hole in self.holes:
            await hole.removed(self._vault)

    def _struck(self, piece: bytes) -> bytes:
        if self.strike is None:
            return piece
        told = self.strike(self._uncertain + piece)
        self._uncertain = told[-LONGEST_STRUCK:]
        return told[:-LONGEST_STRUCK]

    def _begin(self, kind: Kind) -> Hole:
        hole = Hole(kind, self._write)
        self.holes.append(hole)
        return hole

    def _write(self, hole: Hole, part: bytes) -> None:
        if self._fault is not None:
            return
        try:
            self._vault.allowance.take(len(part))
        except ToolbusError as error:
            self._fault = error
            return
        hole.taken += len(part)
        self._waiting.append((hole, hole.parts, part))
        hole.parts += 1
        self._backlog += len(part)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.ensure_future(self._write_all())
        self._hold_up()

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                hole, number, part = self._waiting.popleft()
                await self._vault.put(hole.prefix, number, hole.key, part)
                self._backlog -= len(part)
                self._hold_up()
        except ToolbusError as error:
            self._fault = error
            self._waiting.clear()
            self._backlog = 0
            self._hold_up()

    def _hold_up(self) -> None:
        """Tell the stream whether it may go on, if that is news."""
        if self._flow is not None and self.full is not self._held_up:
            self._held_up = self.full
            self._flow(not self.full)


def _media(kind: Kind, beginning: bytes) -> str:
    """What a value that is said to be nothing seems to be."""
    if kind is Kind.BASE64:
        return "application/octet-stream"
    looks = kind is Kind.JSON or beginning.lstrip()[:1] in (b"{", b"[")
    return "application/json" if looks else "text/plain"
