"""Following a stream without a consumer: the server repeats what it stores, direct gets fill gaps.

A service that could create a consumer could have it deliver to any subject (ADR 18). The streams of
buckets are declared so that the server publishes each stored message again (`republish`). That is
at most once: a gap in the numbers, a new connection or a periodic look at the stream leads to
reading on from the last number without a gap.
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
from toolbus_common.nats.stream_reader import Extent, StreamEntry, extent, read_on, repeated

log = logging.getLogger(__name__)

LOOK_SECONDS = 3.0  # between looks: what was lost without a trace is known so much later
AGAIN_SECONDS = 0.2  # after the server did not answer
MOST_WAITING = 10_000  # repeated messages that wait to be taken; beyond, the stream is read again


class StreamFollower:
    """One follower of one stream. `subject` is where the server repeats what it stores there."""

    def __init__(self, client: Client, stream: str, subject: str) -> None:
        self._client = client
        self._stream = stream
        self._subject = subject
        self._waiting: deque[StreamEntry] = deque()
        self._something = asyncio.Event()
        self._unsure = True  # the stream may have more than what waits
        self._known: Extent | None = None
        self._place = 0  # everything up to here was told
        self._fell_back = False

    async def run(
        self, on_back: list[Callable[[], None]]
    ) -> AsyncGenerator[list[StreamEntry] | None]:
        """Yield what the stream keeps, then None, then what it stores from then on.

        It begins anew, with another None, when the stream was made anew. Without end.
        """
        heard = await self._client.subscribe(self._subject, cb=self._hear)
        on_back.append(self._doubt)
        try:
            while True:
                if self._unsure:
                    async for batch in self._read():
                        yield batch
                batch = self._taken()
                if batch:
                    yield batch
                elif not self._unsure:
                    await self._wait()
        finally:
            on_back.remove(self._doubt)
            if self._client.is_connected:
                with suppress(NatsError):
                    await heard.unsubscribe()

    async def _hear(self, message: Msg) -> None:
        kept = repeated(message, self._stream)
        if kept is None or len(self._waiting) >= MOST_WAITING:
            self._unsure = True
        else:
            self._waiting.append(kept)
        self._something.set()

    def _doubt(self) -> None:
        self._unsure = True
        self._something.set()

    async def _wait(self) -> None:
        """Return when there may be something: it was repeated, or a look is due."""
        self._something.clear()
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._something.wait()
        except TimeoutError:
            self._unsure = True

    def _taken(self) -> list[StreamEntry]:
        """Take what waits, as far as it follows on what was told."""
        batch: list[StreamEntry] = []
        while self._waiting:
            kept = self._waiting.popleft()
            if kept.sequence > self._place + 1:
                self._waiting.clear()  # it is read again, with what is missing before it
                self._unsure = True
            elif kept.sequence == self._place + 1:
                self._place = kept.sequence
                batch.append(kept)
        return batch

    async def _read(self) -> AsyncGenerator[list[StreamEntry] | None]:
        """Yield what the stream has beyond what was told, and None at the end of a first time."""
        self._unsure = False
        try:
            now = await extent(self._client, self._stream)
            first = self._begins_anew(now)
            if first or now.newest > self._place:
                async for batch in read_on(self._client, self._stream, self._place + 1, ">"):
                    self._place = batch[-1].sequence
                    yield batch
                self._place = max(self._place, now.newest)
        except BusDownError as error:
            self._unsure = True
            if self._client.is_connected:
                log.warning("stream.not_read", extra={"stream": self._stream, "why": str(error)})
            await asyncio.sleep(AGAIN_SECONDS)
            return
        if first:
            self._known = now
            yield None

    def _begins_anew(self, now: Extent) -> bool:
        """Whether to read from the start: for the first time, or because the stream is another.

        A new leader may for a moment know less than the one before: that is looked at twice.
        """
        if self._known is None:
            return True
        behind = now.newest < self._place
        another = now.begun != self._known.begun or (behind and self._fell_back)
        self._fell_back = behind
        if another:
            log.warning("stream.made_anew", extra={"stream": self._stream})
            self._known, self._place = None, 0
            self._waiting.clear()
        return another
