"""Call transport of one service: it sends calls, serves calls and waits for their replies."""

import asyncio
import itertools
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from time import time
from typing import Any, TypeVar

from toolbus_common.concurrency import end
from toolbus_common.contracts.calls import CallAdmitted, CallCancelled, CallRequested
from toolbus_common.contracts.replies import (
    CallContext,
    CallError,
    CallNotification,
    FinalReply,
    Reply,
    ReplyMessage,
    decode_reply,
    final_reply,
)
from toolbus_common.errors import OutcomeUnknownError, PolicyDownError, ToolbusError
from toolbus_common.messaging.local_transport import CallHandler, LocalTransport
from toolbus_common.messaging.pending_replies import PendingReplies, timed_out
from toolbus_common.nats.client import answerable
from toolbus_common.nats.connection import Bus, Subscription
from toolbus_common.observability.tracing.context import bind

log = logging.getLogger(__name__)

T = TypeVar("T")
Call = CallRequested | CallAdmitted
Undelivered = Callable[[], Coroutine[Any, Any, None]]  # replies to a call that no executor took
REPLY_SECONDS = 1.0  # for the reply to a call whose resources were closed
EXPIRY_SECONDS = 0.5  # between two checks for calls past their deadline
FORGET_SECONDS = 5.0  # NATS reports "no responders" within milliseconds or never


class NatsContext:
    """The context of a call from another process; messages are published on its reply subject."""

    __slots__ = ("_address", "_bus")

    def __init__(self, bus: Bus, address: str) -> None:
        self._bus = bus
        self._address = address

    async def send(self, message: ReplyMessage) -> None:
        """Publish a message; an unreachable caller times out at its own deadline."""
        # The message would be published with this service's permissions.
        if not answerable(self._address):
            log.warning("call.reply_rejected", extra={"address": self._address})
            return
        try:
            await self._bus.publish(self._address, message.encode())
        except ToolbusError:
            log.warning("call.reply_lost", extra={"address": self._address})


class CallTransport:
    """Sends and serves calls of one service, over NATS or within the process.

    The handler of a call within the process runs in the caller's task. A caller that may be
    cancelled before the service stops must use `request_detached`.
    """

    def __init__(self, service: str, bus: Bus, local: LocalTransport) -> None:
        self._bus = bus
        self._local = local
        self._pending = PendingReplies()
        self._origin = secrets.token_hex(6)
        self._prefix = f"tb.reply.{service}.{self._origin}"
        self._count = itertools.count(1)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._served: dict[str, Subscription] = {}
        self._draining = False
        self._undelivered: dict[str, Undelivered] = {}
        self._undelivered_before: dict[str, Undelivered] = {}
        self._rotation: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Subscribe to replies."""
        await self._bus.subscribe(
            f"{self._prefix}.*", self._on_reply, on_no_responders=self._on_no_responders
        )
        self._bus.on_lost.append(self._lost)
        self._rotate()
        self._expire()

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
        self,
        call: CallRequested,
        on_notification: Callable[[CallNotification], None] | None = None,
        on_extended: Callable[[float], None] | None = None,
        handler: CallHandler | None = None,
    ) -> FinalReply:
        """Send a call and return its final reply.

        Earlier messages are passed to `on_notification`, and each later deadline to `on_extended`.
        `handler` handles the call instead of the service that serves its subject.

        Raises:
            ToolbusError: the error the call ended with.

        """
        reply: Reply | None = None
        pending = self._pending.open(call.call_id, call.deadline, on_notification, on_extended)
        handler = handler or self._local.find(call.SUBJECT, call.server)
        try:
            if handler is None:
                received = pending.wait()
                await self._bus.publish(call.subject, call.encode(), call.reply_to)
            else:
                pending.task = asyncio.current_task()
                reply = await handler(call, pending)
                if reply is not None:
                    return final_reply(reply)
                received = pending.wait()
            await received
            return final_reply(pending.take())
        except asyncio.CancelledError:
            if not pending.expired:
                raise
            return final_reply(timed_out())
        except ToolbusError:
            raise
        except Exception as error:  # noqa: BLE001 - logged
            return final_reply(_internal_error(call, error))
        finally:
            reply = None  # see `final_reply`
            self._pending.close(call.call_id)

    async def request_detached(self, call: CallRequested) -> FinalReply:
        """Send a call from a task that may be cancelled; the call itself goes on.

        Raises like `request`.
        """
        return await asyncio.shield(self.spawn(self._request_bound(call)))

    async def _request_bound(self, call: CallRequested) -> FinalReply:
        bind(call.traceparent)
        return await self.request(call)

    async def cancel(self, call_id: str) -> None:
        """Publish that the reply to a call is no longer needed. Raises `BusDownError`."""
        cancelled = CallCancelled(call_id=call_id)
        await self._bus.publish(cancelled.subject, cancelled.encode())

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine in a task of its own; a drain waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def hand_over(
        self, call: CallAdmitted, context: CallContext, undelivered: Undelivered
    ) -> Awaitable[Reply | None]:
        """Pass an admitted call on, and return its final reply, as an awaitable.

        The reply is None if a service in another process completes the call: it replies to
        `call.reply_to` directly. If no executor serves the server, `undelivered` is run, which
        replies to the caller. The awaitable raises `BusDownError`.
        """
        handler = self._local.find(call.SUBJECT, call.server)
        if handler is not None:
            return handler(call, context)
        return self._hand_over(call, undelivered)

    async def _hand_over(self, call: CallAdmitted, undelivered: Undelivered) -> None:
        self._undelivered[call.call_id] = undelivered
        await self._bus.publish(call.subject, call.encode(), self.address(call.call_id))

    async def serve(
        self, contract: type[Call], server: str, handler: CallHandler, queue: str
    ) -> None:
        """Serve calls of a server (`*`: of every server), shared with the other replicas.

        If they are served already, or after `drain`, nothing changes.
        """
        subject = f"{contract.SUBJECT}.{server}"
        if self._draining or subject in self._served:
            return

        def receive(payload: bytes, _subject: str, _reply: str) -> None:
            call = contract.decode(payload)
            self.spawn(answer_call(handler, call, self._bus))

        subscription = await self._bus.subscribe(subject, receive, queue=queue)
        if self._draining:
            await subscription.stop()
            return
        self._served[subject] = subscription
        self._local.serve(subject, handler)

    def serves(self, contract: type[Call], server: str) -> bool:
        """Return whether the calls of a server are served here."""
        return f"{contract.SUBJECT}.{server}" in self._served

    async def leave(self, contract: type[Call], server: str) -> None:
        """Stop serving the calls of a server."""
        subject = f"{contract.SUBJECT}.{server}"
        self._local.leave(subject)
        subscription = self._served.pop(subject, None)
        if subscription is not None:
            await subscription.stop()

    async def drain(self, seconds: float) -> None:
        """Stop serving calls, and wait up to `seconds` for the calls in progress."""
        self._draining = True
        served, self._served = self._served, {}
        for subject in served:
            self._local.leave(subject)
        await asyncio.gather(*(each.stop() for each in served.values()))
        if running := self._tasks | self._pending.tasks:
            await asyncio.wait(running, timeout=seconds)
        for timer in (self._rotation, self._expiry):
            if timer is not None:
                timer.cancel()

    async def close(self) -> None:
        """Wait for the calls in progress, then cancel the rest.

        Call this after the resources that the calls use are closed, so that each can still reply.
        """
        if running := self._tasks | self._pending.tasks:
            await asyncio.wait(running, timeout=REPLY_SECONDS)
        await end(*self._tasks, *self._pending.tasks)

    def _on_reply(self, payload: bytes, subject: str, _reply: str) -> None:
        self._pending.deliver(subject.rpartition(".")[2], decode_reply(payload))

    def _on_no_responders(self, _payload: bytes, subject: str, _reply: str) -> None:
        call_id = subject.rpartition(".")[2]
        undelivered = self._undelivered.pop(call_id, None) or self._undelivered_before.pop(
            call_id, None
        )
        if undelivered is not None:
            self.spawn(undelivered())
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

    def _expire(self) -> None:
        self._pending.expire(time())
        self._expiry = asyncio.get_running_loop().call_later(EXPIRY_SECONDS, self._expire)


async def answer_call(handler: CallHandler, call: Call, bus: Bus) -> None:
    """Handle a call from another process, and publish its final reply.

    If the handler fails unexpectedly, the reply is an error.
    """
    bind(call.traceparent)
    context = NatsContext(bus, call.reply_to)
    reply: Reply | None
    try:
        reply = await handler(call, context)
    except ToolbusError as error:
        reply = CallError(error)
    except Exception as error:  # noqa: BLE001 - logged
        reply = _internal_error(call, error)
    if reply is not None:
        await context.send(reply)


def _internal_error(call: Call, error: Exception) -> CallError:
    log.error("call.handler_failed", extra={"call_id": call.call_id}, exc_info=error)
    return CallError(
        ToolbusError(
            "Internal error; the log of the service has the details. Report it with the call id."
        )
    )
