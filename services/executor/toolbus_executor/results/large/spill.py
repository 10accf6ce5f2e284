"""Spill buffer of one streamed result. Large values are stored in parts; the rest is buffered."""

import asyncio
import os
import secrets
from collections import deque
from collections.abc import Callable

from toolbus_common.errors import ToolbusError, UpstreamInvalidError
from toolbus_executor.results.large.decoder import Decoder
from toolbus_executor.results.large.json_scanner import Kind, Scanner
from toolbus_executor.results.large.store import PART, LargeResultStore

PLACEHOLDER = "toolbus-kept-"  # prefix of placeholders; a random suffix makes them unguessable
BEGINNING = 2_000  # bytes that a preview shows
LONGEST_STRUCK = 4096
MAX_WAITING = 4 << 20  # the stream is paused while more bytes than this wait to be written


class ExtractedValue:
    """A large value that was extracted from a message, and its location in the store."""

    def __init__(self, kind: Kind, write: Callable[["ExtractedValue", bytes], None]) -> None:
        self.name = PLACEHOLDER + secrets.token_hex(16)
        self.placeholder = f'"{self.name}"'.encode()
        self.kind = kind
        self.prefix = secrets.token_hex(16)
        self.key = os.urandom(32)
        self.size = 0
        self.parts = 0
        self.taken = 0  # bytes charged to the quota
        self.settled = False  # a caller received the result URI
        self.beginning = b""
        self.media = ""  # declared by the server, otherwise guessed
        self._write = write
        self._decoder = Decoder(kind)
        self._part = bytearray()

    def feed(self, raw: bytes) -> None:
        """Receive a piece of the value as raw JSON."""
        self.add(self._decoder.feed(raw))

    def add(self, value: bytes) -> None:
        """Receive a decoded piece of the value."""
        if len(self.beginning) < BEGINNING:
            self.beginning = (self.beginning + value)[:BEGINNING]
        self.size += len(value)
        self._part += value
        while len(self._part) >= PART:
            self._write(self, bytes(self._part[:PART]))
            del self._part[:PART]

    def end(self) -> None:
        """Write the remaining part, and set the media type."""
        self.add(self._decoder.end())
        if self._part:
            self._write(self, bytes(self._part))
            self._part.clear()
        self.media = self.media or _media(self.kind, self.beginning)

    async def remove(self, store: LargeResultStore) -> None:
        """Delete the stored parts, unless a caller received the result URI."""
        if not self.settled:
            self.settled = True  # delete once
            store.quota.release(self.taken)
            await store.delete_parts(self.prefix, self.parts)


class SpillBuffer:
    """Spill buffer of one message of at most `largest` bytes.

    `flow` is called with False when the stream must pause, and with True when it may continue. If
    `whole` is set, the message is stored as one value of that kind.
    """

    def __init__(
        self,
        store: LargeResultStore,
        largest: int,
        flow: Callable[[bool], None] | None = None,
        whole: Kind | None = None,
    ) -> None:
        self.extracted: list[ExtractedValue] = []
        self.size = 0
        self.strike: Callable[[bytes], bytes] | None = (
            None  # redacts secrets before a value is stored
        )
        self._tail = b""  # can contain the beginning of a secret
        self._store = store
        self._largest = largest
        self._flow = flow
        self._paused = False
        self._scanner = Scanner(self._begin)
        self._whole = self._begin(whole) if whole is not None else None
        self._waiting: deque[tuple[ExtractedValue, int, bytes]] = deque()
        self._backlog = 0
        self._writing: asyncio.Task[None] | None = None
        self._failure: ToolbusError | None = None  # why storing stopped
        self.goes_on = False  # after a failure, read to the end of the message

    def feed(self, piece: bytes) -> None:
        """Process the next piece of the message. Raises `ToolbusError`."""
        self.size += len(piece)
        if self.size > self._largest:
            raise UpstreamInvalidError(
                f"The upstream's reply is too large: it exceeds {self._largest} bytes, the limit "
                "in the server's configuration; request less."
            )
        if self._whole is not None:
            self._whole.add(self._redacted(piece))
        else:
            self._scanner.feed(piece)
        if self._failure is not None and not self.goes_on:
            raise self._failure

    @property
    def rest(self) -> bytes:
        """The message, with placeholders in place of its large values."""
        return bytes(self._scanner.rest)

    @property
    def full(self) -> bool:
        """Whether too many bytes wait to be written."""
        return self._backlog > MAX_WAITING

    async def service(self) -> None:
        """Wait while too many bytes wait to be written."""
        if self.full and self._writing is not None:
            await self._writing

    async def ended(self) -> bytes:
        """Wait until every part is stored, and return the rest. Raises `ToolbusError`."""
        if self._whole is not None:
            self._whole.add(self._tail)
            self._whole.end()
        if self._writing is not None:
            await self._writing
        if self._failure is not None:
            raise self._failure
        return self.rest

    async def abandon(self) -> None:
        """Stop writing, and delete the stored parts."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        for value in self.extracted:
            await value.remove(self._store)

    def _redacted(self, piece: bytes) -> bytes:
        if self.strike is None:
            return piece
        clean = self.strike(self._tail + piece)
        self._tail = clean[-LONGEST_STRUCK:]
        return clean[:-LONGEST_STRUCK]

    def _begin(self, kind: Kind) -> ExtractedValue:
        value = ExtractedValue(kind, self._write)
        self.extracted.append(value)
        return value

    def _write(self, value: ExtractedValue, part: bytes) -> None:
        if self._failure is not None:
            return
        try:
            self._store.quota.take(len(part))
        except ToolbusError as error:
            self._failure = error
            return
        value.taken += len(part)
        self._waiting.append((value, value.parts, part))
        value.parts += 1
        self._backlog += len(part)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.ensure_future(self._write_all())
        self._update_flow()

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                value, number, part = self._waiting.popleft()
                await self._store.put(value.prefix, number, value.key, part)
                self._backlog -= len(part)
                self._update_flow()
        except ToolbusError as error:
            self._failure = error
            self._waiting.clear()
            self._backlog = 0
            self._update_flow()

    def _update_flow(self) -> None:
        """Pause or resume the stream when the number of waiting bytes crosses its limit."""
        if self._flow is not None and self.full is not self._paused:
            self._paused = self.full
            self._flow(not self.full)


def _media(kind: Kind, beginning: bytes) -> str:
    """Return the probable media type of a value whose type the server does not declare."""
    if kind is Kind.BASE64:
        return "application/octet-stream"
    looks = kind is Kind.JSON or beginning.lstrip()[:1] in (b"{", b"[")
    return "application/json" if looks else "text/plain"
