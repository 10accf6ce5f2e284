"""The messages of one answer, kept so that a reader whose connection ended may come back."""

import asyncio
from collections.abc import AsyncIterator

from .wire import Json


class Stream:
    """Grows until it is finished; a pause sends its readers away without finishing it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.messages: list[Json] = []
        self.finished = False
        self.status = 200
        self._pauses = 0
        self._changed = asyncio.Event()

    def put(self, message: Json) -> None:
        """Add a message."""
        self.messages.append(message)
        self._wake()

    def finish(self, message: Json | None = None, status: int = 200) -> None:
        """Add the last message."""
        if message is not None:
            self.messages.append(message)
        self.status = status
        self.finished = True
        self._wake()

    def pause(self) -> None:
        """End the connections that read now."""
        self._pauses += 1
        self._wake()

    async def begun(self) -> None:
        """Wait for a first message, the end, or a pause."""
        while not (self.messages or self.finished or self._pauses):
            await self._changed.wait()

    @property
    def single(self) -> bool:
        """Whether one message is the whole answer, so that plain JSON can carry it."""
        return self.finished and len(self.messages) == 1 and not self._pauses

    async def read(
        self, position: int, *, idle: float, resumed: bool = False
    ) -> AsyncIterator[tuple[int, Json | None]]:
        """Every message from `position` on with its number; None when none came for `idle` s."""
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
    """One stream for every answer of a session; the end of one answer is not its end."""

    def finish(self, message: Json | None = None, status: int = 200) -> None:  # noqa: ARG002
        """Add the message."""
        if message is not None:
            self.put(message)
