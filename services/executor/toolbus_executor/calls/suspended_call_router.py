"""Rounds of a call that reached another replica than its keeper: passed on over the bus."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from toolbus_common.contracts import CallAdmitted, CallCancelled
from toolbus_common.messaging.call_transport import NatsReply
from toolbus_common.nats.connection import Bus
from toolbus_executor.calls.call_handler import Runner

log = logging.getLogger(__name__)

SUBJECT = "tb.resume"
FORGET_SECONDS = 5.0  # "nobody there" comes within milliseconds or never
LEAVE_SECONDS = 5.0

Nobody = Callable[[], Awaitable[None]]
Find = Callable[[str], Runner | None]


class ParkLane:
    """What executors say to each other, and the word that a call is no longer wanted."""

    def __init__(self, bus: Bus, instance: str, find: Find) -> None:
        self._bus = bus
        self._instance = instance
        self._find = find
        self._inbox = f"_INBOX.{bus.name}.park-{secrets.token_hex(8)}"
        self._undelivered: dict[str, Nobody] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, cancel: Callable[[str], None]) -> None:
        """Begin to hear."""

        def cancelled(payload: bytes, _subject: str, _reply: str) -> None:
            cancel(CallCancelled.decode(payload).call_id)

        await self._bus.subscribe(f"{self._inbox}.*", _ignore, on_nobody=self._nobody)
        await self._bus.subscribe(f"{SUBJECT}.{self._instance}", self._heard)
        await self._bus.subscribe(f"{CallCancelled.SUBJECT}.*", cancelled)

    async def forward(self, call: CallAdmitted, owner: str, nobody: Nobody) -> None:
        """Pass a call on; `nobody` is awaited if its owner is gone. Raises `BusDownError`."""
        self._undelivered[call.call_id] = nobody
        loop = asyncio.get_running_loop()
        loop.call_later(FORGET_SECONDS, self._undelivered.pop, call.call_id, None)
        await self._bus.publish(
            f"{SUBJECT}.{owner}", call.encode(), f"{self._inbox}.{call.call_id}"
        )

    async def close(self) -> None:
        """Let what is under way end."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LEAVE_SECONDS)
        for task in self._tasks:
            task.cancel()

    def _heard(self, payload: bytes, _subject: str, _reply: str) -> None:
        call = CallAdmitted.decode(payload)
        runner = self._find(call.server)
        if runner is None:
            log.warning("park.server_unknown", extra={"server": call.server})
            return
        self._spawn(runner.run(call, NatsReply(self._bus, call.reply_to)))

    def _nobody(self, _payload: bytes, subject: str, _reply: str) -> None:
        nobody = self._undelivered.pop(subject.rpartition(".")[2], None)
        if nobody is not None:
            self._spawn(_awaited(nobody))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _awaited(work: Nobody) -> None:
    await work()


def _ignore(_payload: bytes, _subject: str, _reply: str) -> None:
    """Nothing is ever answered here."""
