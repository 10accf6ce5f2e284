"""Deliver events to webhooks, at least once, with an independent queue per webhook.

A message of the stream is acknowledged once every subscribed webhook has accepted its events or
has missed the deadline. Until then it stays in the stream, so a crash loses nothing.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from time import time
from typing import Any

import msgspec
from tenacity import RetryCallState

from toolbus_audit.webhooks.signing import NoSecretError, body_of, headers_of, signers_of
from toolbus_common.config import Webhook
from toolbus_common.egress.http_messages import HttpError
from toolbus_common.messaging.broker import EventBatch
from toolbus_common.nats.connection import StoredMessage
from toolbus_common.retries import Backoff, reason_of, retrying
from toolbus_common.secrets import SecretError, Secrets, filled

log = logging.getLogger(__name__)

LONGEST_QUEUE = 1000  # events of one webhook; older events are dropped
GIVE_UP_SECONDS = 24 * 3600.0  # age of an event after which delivery is not retried
FIRST_RETRY, SLOWEST_RETRY = 1.0, 300.0
FAILURES = (HttpError, NoSecretError, SecretError)

Post = Callable[[Webhook, bytes, Mapping[str, str]], Awaitable[None]]
Event = dict[str, Any]


@dataclass(eq=False, slots=True)
class PendingMessage:
    """Message of the stream, and the number of its deliveries that are not finished."""

    message: StoredMessage
    deliveries: int = 0


@dataclass(frozen=True, slots=True)
class Delivery:
    """Delivery of one event to one webhook."""

    pending: PendingMessage
    event: Event


@dataclass(eq=False, slots=True)
class WebhookQueue:
    """Deliveries that one webhook has not accepted yet, in order."""

    waiting: list[Delivery] = field(default_factory=list)
    task: "asyncio.Task[None] | None" = None


class WebhookDispatcher:
    """Dispatcher to the webhooks that `configured` returns, by name, signed with their secrets."""

    def __init__(
        self,
        configured: Callable[[], Mapping[str, Webhook]],
        send: Post,
        secrets: Secrets,
        first_retry: float = FIRST_RETRY,
        reveal: Callable[[str], str] = str,
    ) -> None:
        self._configured = configured
        self._secrets = secrets
        self._send = send
        self._first_retry = first_retry
        self._reveal = reveal  # decrypts personal data: webhooks receive plain text
        self._queues: dict[str, WebhookQueue] = {}
        self._pending: dict[int, PendingMessage] = {}  # by sequence in the stream

    async def receive(self, messages: EventBatch) -> None:
        """Dispatch messages of the stream.

        A message is acknowledged when its deliveries have ended.
        """
        for message in messages:
            await self._accept(message)

    async def close(self) -> None:
        """Stop. Events that are not delivered are redelivered after the next start."""
        tasks = [queue.task for queue in self._queues.values() if queue.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, message: StoredMessage) -> None:
        known = self._pending.get(message.sequence)
        if known is not None:  # redelivered because delivery is slow: acknowledge the newest copy
            known.message = message
            return
        pending = PendingMessage(message)
        wanted = [
            (name, Delivery(pending, event))
            for event in _events(message.data)
            for name, hook in self._configured().items()
            if hook.wants(event["event"], str(event.get("customer", "")))
        ]
        if not wanted:
            await _acknowledge(message.done)
            return
        pending.deliveries = len(wanted)
        self._pending[message.sequence] = pending
        for name, delivery in wanted:
            await self._enqueue(name, delivery)

    async def _enqueue(self, name: str, delivery: Delivery) -> None:
        queue = self._queues.setdefault(name, WebhookQueue())
        if len(queue.waiting) >= LONGEST_QUEUE:
            # The first delivery may be in flight, so the second delivery is dropped.
            reason = f"its queue has {LONGEST_QUEUE} events"
            log.error("webhook.event_dropped", extra={"webhook": name, "reason": reason})
            await self._finish(queue.waiting.pop(1))
        queue.waiting.append(delivery)
        if queue.task is None or queue.task.done():
            queue.task = asyncio.get_running_loop().create_task(self._work(name, queue))

    async def _work(self, name: str, queue: WebhookQueue) -> None:
        while queue.waiting:
            await self._deliver(name, queue.waiting[0].event)
            await self._finish(queue.waiting.pop(0))

    async def _deliver(self, name: str, event: Event) -> None:
        """Retry until the webhook accepts the event or is removed, or the event is too old."""

        def failed(state: RetryCallState) -> None:
            log.warning("webhook.failed", extra={"webhook": name, "reason": reason_of(state)})

        def too_old(_state: RetryCallState) -> bool:
            return bool(time() > event["at"] + GIVE_UP_SECONDS)

        backoff = Backoff(self._first_retry, SLOWEST_RETRY)
        try:
            await retrying(backoff, FAILURES, failed=failed, stop=too_old)(self._post, name, event)
        except FAILURES as error:
            log.error(  # noqa: TRY400 - the reason is logged
                "webhook.event_dropped", extra={"webhook": name, "reason": str(error)}
            )

    async def _post(self, name: str, event: Event) -> None:
        hook = self._configured().get(name)
        if hook is None:
            return
        signers = signers_of(filled(hook.secret, await self._secrets.read([hook.secret])))
        body = self._reveal(body_of(event).decode()).encode()
        await self._send(hook, body, headers_of(signers, event["id"], int(time()), body))

    async def _finish(self, delivery: Delivery) -> None:
        pending = delivery.pending
        pending.deliveries -= 1
        if not pending.deliveries:
            self._pending.pop(pending.message.sequence, None)
            await _acknowledge(pending.message.done)


async def _acknowledge(done: Callable[[], Awaitable[None]]) -> None:
    try:
        await done()
    except Exception as error:  # noqa: BLE001 - the bus is down and will redeliver the message
        log.info("webhook.not_acknowledged", extra={"reason": str(error)})


def _events(lines: bytes) -> Iterator[Event]:
    for queue in lines.split(b"\n"):
        try:
            event = msgspec.json.decode(queue)
            if (
                isinstance(event["event"], str)
                and isinstance(event["id"], str)
                and event["at"] >= 0
            ):
                yield event
        except (msgspec.DecodeError, KeyError, TypeError):
            log.error("webhook.unreadable_event")  # noqa: TRY400 - the line itself is not logged
