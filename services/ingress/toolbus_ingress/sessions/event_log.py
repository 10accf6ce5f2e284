"""What is said on one stream: numbered, read once, and kept for whoever comes back for it."""

import asyncio
from collections import deque
from collections.abc import Callable

MOST_EVENTS = 256
LARGEST = 1024 * 1024  # but for the newest, which is kept whatever its size
RETRY_MS = 1000  # when a client is to come back, unless a server said otherwise

Entry = tuple[int, bytes]


class Journal:
    """Messages of one stream, the oldest dropped first; an empty one has a number and no content.

    With a name it keeps what was read; without one nobody can come back, and it keeps nothing.
    A reader that falls behind loses what was said first, never what was said last.
    """

    def __init__(self, name: str = "", most: int = MOST_EVENTS, bound: int = LARGEST) -> None:
        self.name = name
        self.keeps = bool(name)
        self.last = 0  # the number given last
        self.size = 0  # bytes kept
        self.ended = False
        self.retry = RETRY_MS
        self.reader: Reader | None = None
        self.on_ended: Callable[[], None] = _nothing
        self.on_read: Callable[[], None] = _nothing  # somebody began to read
        # Nobody reads any longer.
        self.on_left: Callable[[], None] = _nothing if name else self.forget
        self.on_grown: Callable[[int], None] = _ignored
        self._most = most
        self._bound = bound
        self._kept: deque[Entry] = deque()

    def put(self, message: bytes) -> None:
        """Add a message."""
        if self.ended:
            return
        before = self.size
        self.last += 1
        self._kept.append((self.last, message))
        self.size += len(message)
        while len(self._kept) > 1 and (len(self._kept) > self._most or self.size > self._bound):
            self._drop()
        self._wake()
        self.on_grown(self.size - before)

    def hear(self, number: int, message: bytes) -> None:
        """Add a message that another replica has numbered; what came before it is known."""
        if number > self.last:
            self.last = number - 1
            self.put(message)

    def mark(self) -> None:
        """Add a number without a message: something to come back with."""
        if not self._kept or self._kept[-1][1]:
            self.put(b"")

    def pause(self, retry: int) -> None:
        """Send the reader away once it has read everything, to come back for the rest."""
        self.retry = retry
        self.mark()
        if self.reader is not None:
            self.reader.until = self.last
            self._wake()

    def close(self) -> None:
        """After what is there comes the end."""
        if not self.ended:
            self.ended = True
            self._wake()
            self.on_ended()

    def forget(self) -> None:
        """Keep nothing, now and later."""
        self.close()
        self._kept.clear()
        self.size = 0

    def let_go(self) -> None:
        """Keep nothing but what a reader has still to read."""
        self.keeps = False
        self.on_read, self.on_grown = _nothing, _ignored
        self.on_left = self.forget
        if self.reader is None:
            self.forget()

    def read(self, after: int = 0) -> "Reader":
        """Begin to read behind a number; who reads already is sent away."""
        if self.reader is not None:
            self.reader.leave()
        self.reader = Reader(self, after)
        self.on_read()
        return self.reader

    def next(self, after: int) -> Entry | None:
        """The entry behind a number, or the oldest kept."""
        behind = self.last - after
        if behind <= 0 or not self._kept:
            return None
        entry = self._kept[max(0, len(self._kept) - behind)]
        if not self.keeps:
            while self._kept and self._kept[0][0] <= entry[0]:
                self._drop()
        return entry

    def _drop(self) -> None:
        self.size -= len(self._kept.popleft()[1])

    def _wake(self) -> None:
        if self.reader is not None:
            self.reader.woken.set()


class Reader:
    """Somebody who reads a journal, until its end or until sent away."""

    def __init__(self, journal: Journal, after: int) -> None:
        self.journal = journal
        self.position = after
        self.until = -1  # the number after which to leave; none yet
        self.woken = asyncio.Event()
        self._left = False

    @property
    def over(self) -> bool:
        """Whether nothing comes any more."""
        journal = self.journal
        paused = 0 <= self.until <= self.position
        return self._left or paused or (journal.ended and self.position >= journal.last)

    async def next(self) -> Entry | None:
        """The next message and its number; None when nothing comes any more."""
        while not self.over:
            entry = self.journal.next(self.position)
            if entry is not None:
                self.position = entry[0]
                return entry
            if self.journal.ended:
                return None
            self.woken.clear()
            await self.woken.wait()
        return None

    def leave(self) -> None:
        """Read no more."""
        if self._left:
            return
        self._left = True
        self.woken.set()
        if self.journal.reader is self:
            self.journal.reader = None
            self.journal.on_left()


def _nothing() -> None:
    """Nobody wants to know."""


def _ignored(_bytes: int) -> None:
    """Nobody counts."""
