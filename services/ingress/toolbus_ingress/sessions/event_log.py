"""The event log of one stream: numbered messages, stored so that a client can resume."""

import asyncio
from collections import deque
from collections.abc import Callable

MAX_EVENTS = 256
LARGEST = 1024 * 1024  # bytes; the newest message is stored whatever its size
RETRY_MS = 1000  # after which a client reconnects, unless a server names another time

Entry = tuple[int, bytes]


class EventLog:
    """Messages of one stream; the oldest are dropped first.

    An empty message is only a position from which a client can resume. A log with a name stores
    messages after they are read. A log without a name cannot be resumed and drops messages when
    they are read. A slow reader loses the oldest messages, never the newest.
    """

    def __init__(self, name: str = "", maximum: int = MAX_EVENTS, bound: int = LARGEST) -> None:
        self.name = name
        self.retains = bool(name)
        self.last = 0  # the newest number
        self.size = 0  # bytes stored
        self.ended = False
        self.retry = RETRY_MS
        self.reader: Reader | None = None
        self.on_ended: Callable[[], None] = _do_nothing
        self.on_read: Callable[[], None] = _do_nothing  # when a reader starts
        # When the reader has stopped and no other reader took over.
        self.on_left: Callable[[], None] = _do_nothing if name else self.clear
        self.on_grown: Callable[[int], None] = _ignore_size
        self._maximum = maximum
        self._bound = bound
        self._entries: deque[Entry] = deque()

    def put(self, message: bytes) -> None:
        """Append a message."""
        if self.ended:
            return
        before = self.size
        self.last += 1
        self._entries.append((self.last, message))
        self.size += len(message)
        while len(self._entries) > 1 and (
            len(self._entries) > self._maximum or self.size > self._bound
        ):
            self._drop_oldest()
        self._wake()
        self.on_grown(self.size - before)

    def put_numbered(self, number: int, message: bytes) -> None:
        """Append a message that another replica numbered, unless it is already stored."""
        if number > self.last:
            self.last = number - 1
            self.put(message)

    def mark(self) -> None:
        """Append a number without a message, as a position from which clients can resume."""
        if not self._entries or self._entries[-1][1]:
            self.put(b"")

    def pause(self, retry: int) -> None:
        """Disconnect the reader after the last message; its client reconnects after `retry` ms."""
        self.retry = retry
        self.mark()
        if self.reader is not None:
            self.reader.until = self.last
            self._wake()

    def close(self) -> None:
        """Reject further messages. A reader ends after the last message."""
        if not self.ended:
            self.ended = True
            self._wake()
            self.on_ended()

    def clear(self) -> None:
        """Close the log and drop its messages."""
        self.close()
        self._entries.clear()
        self.size = 0

    def release(self) -> None:
        """Drop all messages except the messages that the current reader has not read yet."""
        self.retains = False
        self.on_read, self.on_grown = _do_nothing, _ignore_size
        self.on_left = self.clear
        if self.reader is None:
            self.clear()

    def read(self, after: int = 0) -> "Reader":
        """Start reading after a number. An earlier reader is disconnected."""
        if self.reader is not None:
            self.reader.leave()
        self.reader = Reader(self, after)
        self.on_read()
        return self.reader

    def next(self, after: int) -> Entry | None:
        """Return the next stored entry after a number; None if there is no such entry yet."""
        behind = self.last - after
        if behind <= 0 or not self._entries:
            return None
        entry = self._entries[max(0, len(self._entries) - behind)]
        if not self.retains:
            while self._entries and self._entries[0][0] <= entry[0]:
                self._drop_oldest()
        return entry

    def _drop_oldest(self) -> None:
        self.size -= len(self._entries.popleft()[1])

    def _wake(self) -> None:
        if self.reader is not None:
            self.reader.woken.set()


class Reader:
    """The only reader of an event log, until the log ends or the reader leaves."""

    def __init__(self, event_log: EventLog, after: int) -> None:
        self.event_log = event_log
        self.position = after
        self.until = -1  # the number after which to leave; -1 for no limit
        self.woken = asyncio.Event()
        self._left = False

    @property
    def finished(self) -> bool:
        """Whether no further message will be read."""
        event_log = self.event_log
        paused = 0 <= self.until <= self.position
        return self._left or paused or (event_log.ended and self.position >= event_log.last)

    def take(self) -> Entry | None:
        """Return the next message and its number; None if there is none yet, or at the end."""
        entry = None if self.finished else self.event_log.next(self.position)
        if entry is not None:
            self.position = entry[0]
        return entry

    async def next(self) -> Entry | None:
        """Return the next message and its number; None after the last message."""
        while (entry := self.take()) is None and not (self.finished or self.event_log.ended):
            self.woken.clear()
            await self.woken.wait()
        return entry

    def leave(self) -> None:
        """Stop reading. Idempotent."""
        if self._left:
            return
        self._left = True
        self.woken.set()
        if self.event_log.reader is self:
            self.event_log.reader = None
            self.event_log.on_left()


def _do_nothing() -> None:
    """Ignore a change of the log."""


def _ignore_size(_bytes: int) -> None:
    """Ignore a change of size."""
