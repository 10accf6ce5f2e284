"""Call transport of one service: it sends calls, serves calls and waits for their replies."""

import asyncio
import itertools
import logging
import secrets
from collections.abc import Callable, Coroutine
from typing import Any

from toolbus_common.concurrency import end
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
REPLY_SECONDS = 1.0  # for the reply to a call whose resources were closed
FORGET_SECONDS = 5.0  # NATS reports "no responders" within milliseconds or never


class NatsReply:
    """Sends reply messages to a caller in another process, on its reply subject."""

    __slots__ = ("_bus", "address")

    def __init__(self, bus: Bus, address: str) -> None:
        self._bus = bus
        self.address = address

    async def send(self, message: ReplyMessage) -> None:
        """Publish; a caller that cannot be reached any more times out at its own deadline."""
        if not answerable(
            self.address
        ):  # the reply would be published with this service's permissions
            log.warning("call.reply_rejected", extra={"address": self.address})
            return
        try:
            await self._bus.publish(self.address, message.encode())
        except ToolbusError:
            log.warning("call.reply_lost", extra={"address": self.address})


class CallTransport:
    """Sends and serves calls of one service, over NATS or within the process."""

    def __init__(self, service: str, bus: Bus, local: LocalTransport) -> None:
        self._bus = bus
        self._local = local
        self._pending = PendingReplies()
        self._origin = secrets.token_hex(6)
        self._prefix = f"tb.reply.{service}.{self._origin}"
        self._count = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._served: dict[str, Subscription] = {}
        self._undelivered: dict[str, Callable[[], None]] = {}
        self._undelivered_before: dict[str, Callable[[], None]] = {}
        self._rotation: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Subscribe to replies."""
        await self._bus.subscribe(
            f"{self._prefix}.*", self._on_reply, on_no_responders=self._on_no_responders
        )
        self._bus.on_lost.append(self._lost)
        self._rotate()

    @property
    def in_flight(self) -> int:
        """The number of calls that this process serves or waits for."""
        return len(self._tasks) + len(self._pending)

    def new_call_id(self) -> str:
        """Return an id that no other process generates."""
        return f"{self._origin}{next(self._count):x}"

    def address(self, call_id: str) -> str:
        """Return the subject on which this process receives the replies to a call."""
        return f"{self._prefix}.{call_id}"

    async def request(
        self, call: CallRequested, on_notification: Callable[[CallNotification], None] | None = None
    ) -> FinalReply:
        """Send a call and wait for its final reply; earlier messages go to `on_notification`.

        Raises:
            ToolbusError: the error the call ended with.

        """
        pending = self._pending.open(call.call_id, on_notification)
        try:
            handler = self._local.find(call.SUBJECT, call.server)
            if handler is not None:
                # A separate task, as in another process: a caller that disconnects or times out
                # neither stops the call half-way nor waits for it.
                self.spawn(
                    _run(handler, call, LocalReply(self._pending, call.call_id, call.reply_to))
                )
            else:
                await self._bus.publish(call.subject, call.encode(), call.reply_to)
            return await self._pending.wait(pending, call.deadline)
        finally:
            self._pending.close(call.call_id)

    async def request_local(
        self, call: CallRequested, handler: CallHandler, on_extended: Callable[[float], None]
    ) -> FinalReply:
        """Send a call to a handler of this service and wait for its final reply.

        `on_extended` is called with each later deadline of the call.

        Raises:
            ToolbusError: the error the call ended with.

        """
        pending = self._pending.open(call.call_id, on_extended=on_extended)
        try:
            self.spawn(_run(handler, call, LocalReply(self._pending, call.call_id, call.reply_to)))
            return await self._pending.wait(pending, call.deadline)
        finally:
            self._pending.close(call.call_id)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in a task of its own; a drain waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def hand_over(
        self, call: CallAdmitted, reply: ReplyChannel, on_undelivered: Callable[[], None]
    ) -> None:
        """Pass an admitted call on; `on_undelivered` is called if no executor serves the server.

        The service that completes the call replies to `reply` directly.
        """
        handler = self._local.find(call.SUBJECT, call.server)
        if handler is not None:
            await handler(call, reply)
            return
        self._undelivered[call.call_id] = on_undelivered
        await self._bus.publish(call.subject, call.encode(), self.address(call.call_id))

    async def serve(
        self, contract: type[Call], server: str, handler: CallHandler, queue: str
    ) -> None:
        """Serve calls of a server (`*`: of every server), shared with the other replicas."""
        subject = f"{contract.SUBJECT}.{server}"

        def receive(payload: bytes, _subject: str, _reply: str) -> None:
            call = contract.decode(payload)
            self.spawn(_run(handler, call, NatsReply(self._bus, call.reply_to)))

        self._served[subject] = await self._bus.subscribe(subject, receive, queue=queue)
        self._local.serve(subject, handler)

    async def leave(self, contract: type[Call], server: str) -> None:
        """Stop serving the calls of a server."""
        subject = f"{contract.SUBJECT}.{server}"
        self._local.leave(subject)
        subscription = self._served.pop(subject, None)
        if subscription is not None and self._bus.connected:
            await subscription.stop()

    async def drain(self, seconds: float) -> None:
        """Stop serving calls, and wait up to `seconds` for the calls in progress."""
        for subject, subscription in list(self._served.items()):
            self._local.leave(subject)
            if self._bus.connected:
                await subscription.stop()
        self._served.clear()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        if self._rotation is not None:
            self._rotation.cancel()

    async def close(self) -> None:
        """End the calls in progress; those whose resources are closed may still send replies."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=REPLY_SECONDS)
        await end(*self._tasks)

    def _on_reply(self, payload: bytes, subject: str, _reply: str) -> None:
        self._pending.deliver(subject.rpartition(".")[2], decode_reply(payload))

    def _on_no_responders(self, _payload: bytes, subject: str, _reply: str) -> None:
        call_id = subject.rpartition(".")[2]
        on_undelivered = self._undelivered.pop(call_id, None) or self._undelivered_before.pop(
            call_id, None
        )
        if on_undelivered is not None:
            on_undelivered()
        else:
            self._pending.fail(
                call_id, PolicyDownError("No policy replica is available; retry shortly.")
            )

    def _lost(self) -> None:
        self._pending.fail_all(
            OutcomeUnknownError(
                "The NATS connection was lost during the call, which may have been executed. "
                "Look up the call id in the audit log before retrying."
            )
        )

    def _rotate(self) -> None:
        self._undelivered_before, self._undelivered = self._undelivered, {}
        self._rotation = asyncio.get_running_loop().call_later(FORGET_SECONDS, self._rotate)


async def _run(handler: CallHandler, call: Call, reply: ReplyChannel) -> None:
    """Serve a call. If the handler fails unexpectedly, reply with an error immediately."""
    bind(call.traceparent)
    try:
        await handler(call, reply)
    except Exception:
        log.exception("call.handler_failed", extra={"call_id": call.call_id})
        await reply.send(
            CallError(
                ToolbusError(
                    "Internal error; the log of the service has the details. "
                    "Report it with the call id."
                )
            )
        )
