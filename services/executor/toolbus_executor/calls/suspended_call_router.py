"""Router of suspended calls to the executor that holds them, over the bus."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable

from toolbus_common.concurrency import Tasks
from toolbus_common.contracts import CallAdmitted, CallCancelled
from toolbus_common.messaging.call_transport import answer_call
from toolbus_common.nats.connection import Bus
from toolbus_executor.calls.call_handler import CallHandler

log = logging.getLogger(__name__)

SUBJECT = "tb.resume"
FORGET_SECONDS = 5.0  # "no responders" arrives within milliseconds or never
LEAVE_SECONDS = 5.0

OnUndelivered = Callable[[], Awaitable[None]]
FindHandler = Callable[[str], CallHandler | None]


class SuspendedCallRouter:
    """Router of calls between executors, and receiver of cancellations."""

    def __init__(self, bus: Bus, instance: str, find: FindHandler) -> None:
        self._bus = bus
        self._instance = instance
        self._find = find
        self._inbox = f"_INBOX.{bus.name}.resume-{secrets.token_hex(8)}"
        self._undelivered: dict[str, OnUndelivered] = {}
        self._tasks = Tasks()

    async def open(self, cancel: Callable[[str], None]) -> None:
        """Subscribe to forwarded calls and cancellations."""

        def cancelled(payload: bytes, _subject: str, _reply: str) -> None:
            cancel(CallCancelled.decode(payload).call_id)

        await self._bus.subscribe(f"{self._inbox}.*", _ignore, on_no_responders=self._no_responders)
        await self._bus.subscribe(f"{SUBJECT}.{self._instance}", self._receive)
        await self._bus.subscribe(f"{CallCancelled.SUBJECT}.*", cancelled)

    async def forward(self, call: CallAdmitted, owner: str, on_undelivered: OnUndelivered) -> None:
        """Forward a call to the executor `owner`. Raises `BusDownError`.

        `on_undelivered` is awaited if this executor no longer exists.
        """
        self._undelivered[call.call_id] = on_undelivered
        loop = asyncio.get_running_loop()
        loop.call_later(FORGET_SECONDS, self._undelivered.pop, call.call_id, None)
        await self._bus.publish(
            f"{SUBJECT}.{owner}", call.encode(), f"{self._inbox}.{call.call_id}"
        )

    async def close(self) -> None:
        """Wait for calls in progress for up to five seconds, then cancel them."""
        await self._tasks.finish(LEAVE_SECONDS)
        await self._tasks.end()

    def _receive(self, payload: bytes, _subject: str, _reply: str) -> None:
        call = CallAdmitted.decode(payload)
        handler = self._find(call.server)
        if handler is None:
            log.warning("suspended_call.server_unknown", extra={"server": call.server})
            return
        self._tasks.start(answer_call(handler.run, call, self._bus))

    def _no_responders(self, _payload: bytes, subject: str, _reply: str) -> None:
        on_undelivered = self._undelivered.pop(subject.rpartition(".")[2], None)
        if on_undelivered is not None:
            self._tasks.start(_await(on_undelivered))


async def _await(work: OnUndelivered) -> None:
    await work()


def _ignore(_payload: bytes, _subject: str, _reply: str) -> None:
    """Ignore a message, because the inbox receives only "no responders"."""
