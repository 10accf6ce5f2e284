"""The streamed response of a run on its way to the caller, in order."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from toolbus_common.contracts import Notification
from toolbus_common.contracts.model_calls import CHUNK
from toolbus_common.contracts.replies import CallContext

Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


class Outlet:
    """Sender of complete events. `put` never waits, so a stream of the model is not delayed.

    `parts` counts the sent notifications, so that the receiver notices a lost one.
    """

    def __init__(self, context: CallContext, spawn: Spawn) -> None:
        self.parts = 0
        self._context = context
        self._spawn = spawn
        self._parts: deque[bytes] = deque()
        self._sender: asyncio.Task[None] | None = None

    def put(self, events: bytes) -> None:
        """Send events after all earlier ones."""
        if not events:
            return
        self._parts.append(events)
        if self._sender is None or self._sender.done():
            self._sender = self._spawn(self._send())

    async def flush(self) -> None:
        """Wait until everything is sent."""
        if self._sender is not None:
            await asyncio.shield(self._sender)

    async def drain(self) -> None:
        """Wait until everything is sent, or cannot be sent."""
        if self._sender is not None:
            await asyncio.wait([self._sender])

    async def _send(self) -> None:
        while self._parts:
            part = self._parts.popleft()
            self.parts += 1
            await self._context.send(Notification(CHUNK, part, self.parts))
