"""Course of one call: send a message, follow its task, and report its progress."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from toolbus_common.a2a.protocol import Json
from toolbus_common.errors import UpstreamDeadError
from toolbus_executor.resilience.failure_log import GarbageError
from toolbus_executor.upstreams.a2a.answer import Answer
from toolbus_executor.upstreams.a2a.events import MESSAGE
from toolbus_executor.upstreams.a2a.requests import Requests
from toolbus_executor.upstreams.a2a.results import words_of
from toolbus_executor.upstreams.base import sent_before
from toolbus_executor.upstreams.call_channel import Caller
from toolbus_executor.upstreams.mcp_tasks.bridge import works_on

FIRST_PAUSE, LONGEST_PAUSE, GROWTH = 0.1, 5.0, 1.5  # seconds between two polls of a task
LONGEST_PROGRESS = 300  # characters


@dataclass(slots=True)
class Exchange:
    """One call of an agent.

    `abandon` is called with the id of a task that no caller awaits any more.
    """

    requests: Requests
    answer: Answer
    streams: bool
    caller: Caller | None
    abandon: Callable[[str], None]
    _steps: int = 0
    _limit: asyncio.Timeout | None = None

    async def run(self, message: Json | None, seconds: float) -> None:
        """Send the message, and follow its task until the task has ended.

        Without a message, only follow the task of `answer`. After `seconds` without progress,
        return: the agent continues the task, and `answer` contains the task's state. If the caller
        cancels the call, the task that the message began is cancelled.

        Raises:
            AgentError: the agent rejected a request.
            ToolbusError: the agent cannot be reached, or its response is malformed or too large.
            TimeoutError: the agent did not respond in time, and `answer` contains no task.

        """
        try:
            async with asyncio.timeout(seconds) as self._limit:
                await self._finish(message)
        except TimeoutError:
            if not (self.answer.task and self.answer.state):
                raise
        except asyncio.CancelledError:
            if message is not None and self.answer.task and not self.answer.ended:
                self.abandon(self.answer.task)
            raise

    async def _finish(self, message: Json | None) -> None:
        if message is None:
            await self._get()
            await self._wait()
            return
        await self._send(message)
        with sent_before():
            await self._wait()

    async def _wait(self) -> None:
        """Poll the task until it has ended."""
        if not (self.answer.state or self.answer.task):
            raise GarbageError("The agent ended its response without an answer; fix the agent.")
        pause = FIRST_PAUSE
        while not self.answer.ended:
            await asyncio.sleep(pause)
            await self._get()
            pause = min(pause * GROWTH, LONGEST_PAUSE)

    async def _send(self, message: Json) -> None:
        protocol = self.requests.interface.protocol
        params: Json = {"message": message}
        if not self.streams:
            params["configuration"] = protocol.without_waiting
            await self.requests.send(protocol.send, params, self._take)
            return
        known = self.answer.task
        try:
            await self.requests.send(protocol.stream, params, self._take)
        except UpstreamDeadError:
            # If the stream breaks after the agent reported a new task, the task is polled.
            if known or not self.answer.task:
                raise

    async def _get(self) -> None:
        params = {"id": self.answer.task}
        await self.requests.send(self.requests.interface.protocol.get, params, self._take_task)

    def _take(self, result: Any, size: int) -> bool:
        kind = self.answer.take(result, size)
        if kind != MESSAGE:
            self._report()
        return self.answer.ended

    def _take_task(self, result: Any, size: int) -> bool:
        self.answer.take_task(result, size)
        self._report()
        return True

    def _report(self) -> None:
        """Extend the deadline, and send the agent's latest message to the caller as progress."""
        if self.caller is None or self._limit is None or self.answer.ended:
            return
        works_on(self._limit, self.caller)
        self._steps += 1
        text = words_of(self.answer.message, LONGEST_PROGRESS) or self.answer.state
        progress = {"progressToken": 0, "progress": self._steps, "message": text}
        self.caller.progressed(msgspec.json.encode(progress))
