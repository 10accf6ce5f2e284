"""The FastStream broker of one service: handlers of queries and of events, on its connection.

    @service.broker.subscriber(AuditQuery.SUBJECT, queue="audit")
    async def answer(query: AuditQuery) -> RowsReply: ...

    @service.broker.events("policy", seconds=0.5, pause=0.1)
    async def settle(messages: EventBatch) -> None: ...

A query is decoded to the contract of its subject. The return value of the handler is the reply. A
`ToolbusError` that the handler raises is also sent as a reply. Queries of a subscriber with
`max_workers` are handled concurrently, all other queries sequentially.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

import msgspec
from faststream import AckPolicy, BaseMiddleware, NoCast, StreamMessage
from faststream.exceptions import NackMessage
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.nats.message import NatsBatchMessage
from faststream.nats.subscriber.usecases import (
    BatchPullStreamSubscriber,
    ConcurrentCoreSubscriber,
    CoreSubscriber,
)
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import ConsumerConfig

from toolbus_common.concurrency import end
from toolbus_common.contracts.base import Message
from toolbus_common.contracts.queries.registry import QUERIES
from toolbus_common.errors import ToolbusError
from toolbus_common.messaging.pull_subscription import BoundStreams
from toolbus_common.nats.client import answerable, left
from toolbus_common.nats.connection import Bus, StoredMessage, stored
from toolbus_common.nats.topology import DURABLES, EVENTS

__all__ = ["AckPolicy", "EventBatch", "ServiceBroker"]

log = logging.getLogger(__name__)
library_log = logging.getLogger("faststream.nats")
library_log.setLevel(logging.WARNING)  # FastStream logs two lines for each message

AGAIN_SECONDS = 1.0  # between a failed batch and its redelivery
QUERY_SECONDS = 2.0  # for the queries and batches in progress when a service stops
EventBatch = NoCast[list[StoredMessage]]  # not validated, because services published the messages


class ContractCodec:
    """Decoder of received queries, and encoder of replies."""

    async def decode(self, msg: StreamMessage[Any]) -> Any:
        """Return the query. Raises `pydantic.ValidationError`."""
        return QUERIES[msg.raw_message.subject].decode(msg.body)

    async def encode(
        self,
        msg: Any,
        serializer: Any = None,  # noqa: ARG002 - FastStream's signature
    ) -> tuple[bytes, str | None]:
        """Return the encoded reply. An error is already encoded."""
        return (msg.encode() if isinstance(msg, Message) else msg), None

    async def decode_batch(self, msg: StreamMessage[Sequence[Msg]]) -> list[StoredMessage]:
        """Return the messages in their stored form. Their handler parses them."""
        return [stored(message) for message in msg.raw_message]

    async def encode_batch(
        self, msgs: Sequence[Any], serializer: Any = None
    ) -> list[tuple[bytes, str | None]]:
        """Return the encoded replies."""
        return [await self.encode(each, serializer) for each in msgs]


class Failures(BaseMiddleware):
    """Middleware that replies to failed queries, and requests redelivery of failed batches."""

    async def consume_scope(self, call_next: Any, msg: StreamMessage[Any]) -> Any:
        """Process one query or one batch."""
        if isinstance(msg, NatsBatchMessage):
            return await self._handle_batch(call_next, msg)
        return await self._handle_query(call_next, msg)

    async def after_processed(
        self, exc_type: Any = None, exc_val: Any = None, exc_tb: Any = None
    ) -> bool | None:
        """Log a reply that could not be sent, for example because it is too large."""
        if isinstance(exc_val, NatsError) and not isinstance(self.msg, list):
            log.warning("reply.lost", extra={"reason": str(exc_val)})
            return True
        return await super().after_processed(exc_type, exc_val, exc_tb)

    async def _handle_query(self, call_next: Any, msg: StreamMessage[Any]) -> Any:
        subject = msg.raw_message.subject
        if not answerable(msg.reply_to):
            log.warning("query.rejected", extra={"subject": subject})
            msg.reply_to = ""
            return None
        try:
            return await call_next(msg)
        except ToolbusError as error:
            return _encoded(error)
        except Exception:
            log.exception("query.failed", extra={"subject": subject})
            return _encoded(ToolbusError("Internal error; the log of the service has the details."))

    async def _handle_batch(self, call_next: Any, msg: NatsBatchMessage) -> Any:
        try:
            return await call_next(msg)
        except Exception as error:
            extra = {"messages": len(msg.raw_message)}
            if isinstance(error, ToolbusError):
                log.warning("service.batch_postponed", extra={**extra, "reason": error.reason})
            else:
                log.exception("service.batch_failed", extra=extra)
            await asyncio.sleep(AGAIN_SECONDS)
            with suppress(Exception):  # without a connection, ack_wait redelivers the messages
                await msg.nack(delay=AGAIN_SECONDS)
            raise NackMessage from error


class EventSubscriber(BatchPullStreamSubscriber):
    """Subscriber that passes each pull to its handler, even an empty one.

    FastStream's loop combines pulls until a batch is full, so it exceeds the byte limit of a pull.
    It also drops empty pulls, so a handler that collects messages would not know that no more
    arrive.
    """

    __slots__ = ()

    async def _consume_pull(self) -> None:
        assert self.subscription is not None  # noqa: S101 - it is subscribed
        while self.running:
            messages = await self.subscription.fetch(
                batch=self.pull_sub.batch_size, timeout=self.pull_sub.timeout
            )
            if self.running:
                await self.consume(messages)
            else:
                await _give_back(messages)


class ServiceBroker(NatsBroker):
    """Broker on the connection of a service. `bus` opens and closes the connection."""

    def __init__(self, bus: Bus) -> None:
        super().__init__(
            name=bus.name,
            codec=ContractCodec(),
            middlewares=(Failures,),
            logger=library_log,
            graceful_timeout=None,  # `stop_queries` waits instead
        )
        self._bus = bus
        self._pauses: dict[str, float] = {}

    def events(
        self,
        durable: str,
        *,
        max_messages: int = 500,
        seconds: float = 0.5,
        pause: float = 0.0,
        ack_policy: AckPolicy = AckPolicy.NACK_ON_ERROR,
    ) -> EventSubscriber:
        """Return the subscriber of a durable consumer of the event stream.

        Its handler receives up to `max_messages` that arrive within `seconds`, or an empty batch.
        The messages are acknowledged when the handler returns, unless `ack_policy` is `MANUAL`.
        After an exception they are redelivered. `pause` is the number of seconds between pulls that
        were not full. A longer pause makes batches larger, and a large batch costs little more than
        a small one.
        """
        self._pauses[durable] = pause
        subjects = next(each.subjects for each in DURABLES if each.consumer_name == durable)
        subscriber = self.subscriber(
            config=ConsumerConfig(filter_subjects=list(subjects)),
            stream=JStream(EVENTS, declare=False),
            durable=durable,
            pull_sub=PullSub(batch_size=max_messages, timeout=seconds, batch=True),
            ack_policy=ack_policy,
            parser=_batch,
        )
        # FastStream chooses the class, and provides no other way to replace its loop.
        subscriber.__class__ = EventSubscriber
        return cast("EventSubscriber", subscriber)

    async def start(self) -> None:
        """Start the subscribers that were not started separately."""
        await self.connect()
        for subscriber in self.subscribers:
            if not subscriber.running:
                await subscriber.start()
        self.running = True

    async def stop_queries(self, *kept: CoreSubscriber) -> None:
        """Stop the subscribers of queries, except `kept`.

        Received queries are processed for at most `QUERY_SECONDS`, then cancelled.
        """
        leaving = [
            each
            for each in self.subscribers
            if isinstance(each, CoreSubscriber) and each.running and each not in kept
        ]
        await asyncio.gather(*(self._leave(each) for each in leaving))

    async def stop(self, *_error: Any) -> None:
        """Stop all subscribers. The connection stays open.

        Batches in progress are processed for at most `QUERY_SECONDS`, then cancelled.
        """
        running = [each for each in self.subscribers if each.running]
        pulling = [each for each in running if isinstance(each, EventSubscriber)]
        for each in pulling:
            each.running = False
        if self._bus.connected and (tasks := [task for each in pulling for task in each.tasks]):
            await asyncio.wait(tasks, timeout=QUERY_SECONDS)
        await asyncio.gather(*(stop_subscriber(each) for each in running))
        self.running = False

    async def _connect(self) -> Client:
        client = self._bus.client
        self.config.connect(client)
        self.config.connection_state.connect(client, BoundStreams(client, self._pauses))
        return client

    async def _leave(self, subscriber: CoreSubscriber) -> None:
        subscription, subscriber.subscription = subscriber.subscription, None
        if subscription is not None:
            await left(self._bus.client, self._bus.on_lost, subscription, QUERY_SECONDS)
            if isinstance(subscriber, ConcurrentCoreSubscriber) and subscriber.tasks:
                subscriber.send_stream.close()
                await asyncio.wait(subscriber.tasks, timeout=QUERY_SECONDS)
        await stop_subscriber(subscriber)


async def _give_back(messages: Sequence[Msg]) -> None:
    """Release messages to other replicas now, before the time for acknowledgement ends."""
    with suppress(NatsError):
        for message in messages:
            await message.nak()


async def stop_subscriber(subscriber: Any) -> None:
    """Stop a subscriber, and cancel the tasks that process its messages."""
    tasks = list(getattr(subscriber, "tasks", ()))
    with suppress(NatsError):  # the connection is closed
        await subscriber.stop()
    await end(*tasks)


async def _batch(messages: list[Msg]) -> NatsBatchMessage:
    return NatsBatchMessage(raw_message=messages, body=b"")


def _encoded(error: ToolbusError) -> bytes:
    return b"!" + msgspec.json.encode(error.as_data())
