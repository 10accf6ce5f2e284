"""Observation of a stream without a consumer, through republished messages and direct gets.

A service with permission to create a consumer could have messages delivered to any subject (ADR
18). The streams of buckets are therefore configured with `republish`: the server publishes each
stored message again, at most once. A gap in the sequence numbers, a new connection or a periodic
check starts a read of the stream, from the last message before the gap.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from toolbus_common.errors import BusDownError
from toolbus_common.nats.stream_reader import Extent, StreamEntry, extent, read_on, republished

log = logging.getLogger(__name__)

LOOK_SECONDS = 3.0  # between checks, which find messages that were not republished
AGAIN_SECONDS = 0.2  # pause after a failed read
MAX_WAITING = 10_000  # republished messages; if there are more, the stream is read again


class StreamFollower:
    """Follows one stream. The server republishes its messages on `subject`."""

    def __init__(self, client: Client, stream: str, subject: str) -> None:
        self._client = client
        self._stream = stream
        self._subject = subject
        self._waiting: deque[StreamEntry] = deque()
        self._something = asyncio.Event()
        self._unsure = True  # the stream can contain messages that were not republished
        self._known: Extent | None = None
        self._position = 0  # all messages up to this sequence number were yielded
        self._fell_back = False

    async def run(
        self, on_back: list[Callable[[], None]]
    ) -> AsyncGenerator[list[StreamEntry] | None]:
        """Yield the stored messages, then None, then every new message. Never ends by itself.

        If the stream is re-created, this is repeated for the new stream.
        """
        subscription = await self._client.subscribe(self._subject, cb=self._receive)
        on_back.append(self._mark_unsure)
        try:
            while True:
                if self._unsure:
                    async for batch in self._read():
                        yield batch
                batch = self._take_waiting()
                if batch:
                    yield batch
                elif not self._unsure:
                    await self._wait()
        finally:
            on_back.remove(self._mark_unsure)
            if self._client.is_connected:
                with suppress(NatsError):
                    await subscription.unsubscribe()

    async def _receive(self, message: Msg) -> None:
        entry = republished(message, self._stream)
        if entry is None or len(self._waiting) >= MAX_WAITING:
            self._unsure = True
        else:
            self._waiting.append(entry)
        self._something.set()

    def _mark_unsure(self) -> None:
        self._unsure = True
        self._something.set()

    async def _wait(self) -> None:
        """Wait until a message is republished or a periodic check is due."""
        self._something.clear()
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._something.wait()
        except TimeoutError:
            self._unsure = True

    def _take_waiting(self) -> list[StreamEntry]:
        """Return the republished messages that follow the position without a gap."""
        batch: list[StreamEntry] = []
        while self._waiting:
            entry = self._waiting.popleft()
            if entry.sequence > self._position + 1:
                self._waiting.clear()  # read them again, together with the missing messages
                self._unsure = True
            elif entry.sequence == self._position + 1:
                self._position = entry.sequence
                batch.append(entry)
        return batch

    async def _read(self) -> AsyncGenerator[list[StreamEntry] | None]:
        """Yield the messages after the current position.

        After the first read, yield None.
        """
        self._unsure = False
        try:
            now = await extent(self._client, self._stream)
            first = self._starts_over(now)
            if first or now.newest > self._position:
                async for batch in read_on(self._client, self._stream, self._position + 1, ">"):
                    self._position = batch[-1].sequence
                    yield batch
                self._position = max(self._position, now.newest)
        except BusDownError as error:
            self._unsure = True
            if self._client.is_connected:
                log.warning("stream.not_read", extra={"stream": self._stream, "reason": str(error)})
            await asyncio.sleep(AGAIN_SECONDS)
            return
        if first:
            self._known = now
            yield None

    def _starts_over(self, now: Extent) -> bool:
        """Return whether to read from the start: at first, or because the stream was re-created.

        A new leader can be behind the previous leader for a short time. A smaller sequence number
        counts as a re-creation only if two checks find it.
        """
        if self._known is None:
            return True
        behind = now.newest < self._position
        another = now.created_at != self._known.created_at or (behind and self._fell_back)
        self._fell_back = behind
        if another:
            log.warning("stream.recreated", extra={"stream": self._stream})
            self._known, self._position = None, 0
            self._waiting.clear()
        return another
