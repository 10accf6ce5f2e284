"""Messages of one answer, stored so that a disconnected reader can resume."""

import asyncio
from collections.abc import AsyncIterator

from .wire import Json


class Stream:
    """A growing list of messages until it is finished; a pause disconnects its readers."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.messages: list[Json] = []
        self.finished = False
        self.status = 200
        self._pauses = 0
        self._changed = asyncio.Event()

    def put(self, message: Json) -> None:
        """Append a message."""
        self.messages.append(message)
        self._wake()

    def finish(self, message: Json | None = None, status: int = 200) -> None:
        """Append the last message."""
        if message is not None:
            self.messages.append(message)
        self.status = status
        self.finished = True
        self._wake()

    def pause(self) -> None:
        """Disconnect the current readers."""
        self._pauses += 1
        self._wake()

    async def started(self) -> None:
        """Wait for the first message, the end, or a pause."""
        while not (self.messages or self.finished or self._pauses):
            await self._changed.wait()

    @property
    def single(self) -> bool:
        """Whether one message is the whole answer, so that plain JSON can carry it."""
        return self.finished and len(self.messages) == 1 and not self._pauses

    async def read(
        self, position: int, *, idle: float, resumed: bool = False
    ) -> AsyncIterator[tuple[int, Json | None]]:
        """Yield numbered messages from `position` on; None after `idle` seconds without one."""
        pauses = self._pauses if resumed else 0
        while True:
            while position < len(self.messages):
                yield position, self.messages[position]
                position += 1
            if self.finished or self._pauses != pauses:
                return
            changed = self._changed
            try:
                async with asyncio.timeout(idle):
                    await changed.wait()
            except TimeoutError:
                yield position, None

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Shared(Stream):
    """One stream for all answers of a session; the end of one answer does not finish it."""

    def finish(self, message: Json | None = None, status: int = 200) -> None:  # noqa: ARG002
        """Append the message."""
        if message is not None:
            self.put(message)
