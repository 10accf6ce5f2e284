"""The call lane of one service: sending calls on, serving them, and waiting for their answers."""

import asyncio
import itertools
import logging
import secrets
from collections.abc import Callable, Coroutine
from typing import Any

from toolbus_common.contracts.calls import CallAdmitted, CallRequested
from toolbus_common.contracts.replies import (
    CallError,
    CallNotification,
    FinalReply,
    ReplyChannel,
    ReplyMessage,
    decode_reply,
)
from toolbus_common.errors import OutcomeUnknownError, PolicyDownError, ToolbusError
from toolbus_common.messaging.local_transport import CallHandler, LocalReply, LocalTransport
from toolbus_common.messaging.pending_replies import PendingReplies
from toolbus_common.nats.connection import Bus, Subscription, answerable
from toolbus_common.observability.tracing.context import bind

log = logging.getLogger(__name__)

Call = CallRequested | CallAdmitted
FORGET_SECONDS = 5.0  # "nobody there" comes within milliseconds or never


class NatsReply:
    """The waiting slot is in another process: frames travel on its reply subject."""

    __slots__ = ("_bus", "address")

    def __init__(self, bus: Bus, address: str) -> None:
        self._bus = bus
        self.address = address

    async def send(self, frame: ReplyMessage) -> None:
        """Publish; a caller that cannot be reached any more is told by its own deadline."""
        if not answerable(self.address):  # it would be written with this service's rights
            log.warning("call.reply_refused", extra={"address": self.address})
            return
        try:
            await self._bus.publish(self.address, frame.encode())
        except ToolbusError:
            log.warning("call.reply_lost", extra={"address": self.address})


class CallTransport:
    """Calls of one service over both transports."""

    def __init__(self, service: str, bus: Bus, exchange: LocalTransport) -> None:
        self._bus = bus
        self._exchange = exchange
        self._mux = PendingReplies()
        self._origin = secrets.token_hex(6)
        self._prefix = f"tb.reply.{service}.{self._origin}"
        self._count = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._served: dict[str, Subscription] = {}
        self._undelivered: dict[str, Callable[[], None]] = {}
        self._undelivered_before: dict[str, Callable[[], None]] = {}
        self._rotation: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Begin to hear answers."""
        await self._bus.subscribe(f"{self._prefix}.*", self._heard, on_nobody=self._nobody)
        self._bus.on_lost.append(self._lost)
        self._rotate()

    @property
    def in_flight(self) -> int:
        """Calls this process serves, and calls it waits for."""
        return len(self._tasks) + len(self._mux)

    def new_call_id(self) -> str:
        """An id no other process makes."""
        return f"{self._origin}{next(self._count):x}"

    def address(self, call_id: str) -> str:
        """The subject on which this process hears a call's answer."""
        return f"{self._prefix}.{call_id}"

    async def ask(
        self, call: CallRequested, on_told: Callable[[CallNotification], None] | None = None
    ) -> FinalReply:
        """Send a call and wait for what ends it; `on_told` hears what is said before.

        Raises:
            ToolbusError: how it ended instead.

        """
        slot = self._mux.open(call.call_id, on_told)
        try:
            handler = self._exchange.find(call.SUBJECT, call.server)
            if handler is not None:
                # A task of its own, as in another process: a caller that leaves or runs out of
                # time neither stops the call half-way nor waits for it.
                self.spawn(_run(handler, call, LocalReply(self._mux, call.call_id, call.reply_to)))
            else:
                await self._bus.publish(call.subject, call.encode(), call.reply_to)
            return await self._mux.wait(slot, call.deadline)
        finally:
            self._mux.close(call.call_id)

    async def ask_here(
        self, call: CallRequested, handler: CallHandler, on_extended: Callable[[float], None]
    ) -> FinalReply:
        """The same of a handler of this service's own. Raises `ToolbusError`.

        `on_extended` is called with each later deadline of the call.
        """
        slot = self._mux.open(call.call_id, on_extended=on_extended)
        try:
            self.spawn(_run(handler, call, LocalReply(self._mux, call.call_id, call.reply_to)))
            return await self._mux.wait(slot, call.deadline)
        finally:
            self._mux.close(call.call_id)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine beside everything else; a drain waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def hand_over(
        self, call: CallAdmitted, reply: ReplyChannel, on_nobody: Callable[[], None]
    ) -> None:
        """Pass an admitted call on; `on_nobody` is called if no executor serves the server.

        The answer goes to `reply` straight from whoever ends the call.
        """
        handler = self._exchange.find(call.SUBJECT, call.server)
        if handler is not None:
            await handler(call, reply)
            return
        self._undelivered[call.call_id] = on_nobody
        await self._bus.publish(call.subject, call.encode(), self.address(call.call_id))

    async def serve(
        self, contract: type[Call], server: str, handler: CallHandler, queue: str
    ) -> None:
        """Take a server's calls (`*`: every server's), sharing them with the other replicas."""
        subject = f"{contract.SUBJECT}.{server}"

        def hear(payload: bytes, _subject: str, _reply: str) -> None:
            call = contract.decode(payload)
            self.spawn(_run(handler, call, NatsReply(self._bus, call.reply_to)))

        self._served[subject] = await self._bus.subscribe(subject, hear, queue=queue)
        self._exchange.serve(subject, handler)

    async def leave(self, contract: type[Call], server: str) -> None:
        """Take no more of a server's calls."""
        subject = f"{contract.SUBJECT}.{server}"
        self._exchange.leave(subject)
        subscription = self._served.pop(subject, None)
        if subscription is not None and self._bus.connected:
            await subscription.stop()

    async def drain(self, seconds: float) -> None:
        """Take nothing new, and let what is under way end."""
        for subject, subscription in list(self._served.items()):
            self._exchange.leave(subject)
            if self._bus.connected:
                await subscription.stop()
        self._served.clear()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        if self._rotation is not None:
            self._rotation.cancel()

    def _heard(self, payload: bytes, subject: str, _reply: str) -> None:
        self._mux.deliver(subject.rpartition(".")[2], decode_reply(payload))

    def _nobody(self, _payload: bytes, subject: str, _reply: str) -> None:
        call_id = subject.rpartition(".")[2]
        on_nobody = self._undelivered.pop(call_id, None) or self._undelivered_before.pop(
            call_id, None
        )
        if on_nobody is not None:
            on_nobody()
        else:
            self._mux.fail(
                call_id, PolicyDownError("No policy replica is there to decide; retry shortly.")
            )

    def _lost(self) -> None:
        self._mux.fail_all(
            OutcomeUnknownError(
                "The bus was lost while the call was under way; it may or may not have happened."
            )
        )

    def _rotate(self) -> None:
        self._undelivered_before, self._undelivered = self._undelivered, {}
        self._rotation = asyncio.get_running_loop().call_later(FORGET_SECONDS, self._rotate)


async def _run(handler: CallHandler, call: Call, reply: ReplyChannel) -> None:
    """Serve a call; a handler that fails unexpectedly is answered for, at once."""
    bind(call.traceparent)
    try:
        await handler(call, reply)
    except Exception:
        log.exception("call.handler_failed", extra={"call_id": call.call_id})
        await reply.send(
            CallError(ToolbusError("Something failed inside; the service's log says what."))
        )
