"""Publisher of events: numbered, batched, and stored until the stream acknowledges them."""

import asyncio
import contextlib
import itertools
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256

from toolbus_common.contracts.events.base import Event
from toolbus_common.contracts.events.encoded import EncodedEvent
from toolbus_common.errors import BusDownError
from toolbus_common.messaging.batcher import Batch, Batcher
from toolbus_common.messaging.event_encryption import PersonKeyring, named, sealed, struck
from toolbus_common.messaging.outbox import Outbox, OutboxFullError
from toolbus_common.nats.connection import Envelope
from toolbus_common.observability.metrics import EVENTS_UNACKNOWLEDGED
from toolbus_common.observability.tracing.context import MAX_LINKS, current

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.5
LINGER_SECONDS = 0.01  # no caller waits for these events, and a batch of 100 costs as much as one
Publish = Callable[[Envelope], Awaitable[None]]  # raises BusDownError unless acknowledged
Line = tuple[str, bytes, str]  # subject, line, and the traceparent of its span if that is recorded
Lines = Batcher[Line, None]


class EventPublisher:
    """One producer of events; `producer` identifies this process.

    For each customer, `seq` counts its events without gaps and `prev` is the hash of the previous
    one (SHA-256 of its line, in hex), so that readers of that customer's events detect a lost or
    altered event.

    Events of one subject that are published at the same time are sent as one message with one line
    per event, so that one acknowledgement of the stream covers all of them.
    """

    people: PersonKeyring | None = None  # keys for personal fields; None: no encryption

    def __init__(self, publish: Publish, spool: Outbox) -> None:
        self.producer = secrets.token_hex(8)
        self._producer = self.producer.encode()
        self._chains: dict[str, tuple[int, str]] = {}
        self._message_numbers = itertools.count(1)
        self._publish = publish
        self._spool = spool
        self._awaited: Lines = Batcher(self._flush, concurrency=2)
        self._unawaited: Lines = Batcher(self._flush, concurrency=1, linger=LINGER_SECONDS)
        self._learning: set[asyncio.Task[None]] = set()
        self._undelivered: list[Envelope] = []
        self._retrying: asyncio.Task[None] | None = None
        self._spooling = asyncio.Lock()
        self.full = False

    def publish_durable(self, event: Event) -> asyncio.Future[None]:
        """Publish an event; the future ends when it is durable, or with `BusDownError`.

        After an error, the event can still reach the stream later. Do not publish it again; publish
        another event with the outcome.
        """
        return self._add(self._awaited, event)

    async def publish_until_durable(self, event: Event) -> None:
        """Publish an event and return when it is durable.

        Use it for events that must exist only once.

        Retrying `publish_durable` after its `BusDownError` could publish the event twice.
        """
        try:
            await self.publish_durable(event)
        except BusDownError:
            while self._retrying is not None and not self._retrying.done():
                await asyncio.wait([self._retrying])

    def publish(self, event: Event | EncodedEvent) -> None:
        """Publish an event without waiting; it is stored until the stream acknowledges it."""
        self._add(self._unawaited, event).add_done_callback(_seen)

    async def delivered(self) -> None:
        """Wait until the stream has all events published so far, or they are in the outbox."""
        await self._learned()
        await self._unawaited.drain()

    def restore(self) -> None:
        """Publish the events that an earlier process of this service could not deliver."""
        self._undelivered.extend(self._spool.replay())
        if self._undelivered:
            log.info("events.restored", extra={"messages": len(self._undelivered)})
            self._retry()

    async def close(self, seconds: float) -> None:
        """Deliver the remaining events.

        Undelivered events stay in the outbox for the next start.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._learned()
                await self._awaited.drain()
                await self._unawaited.drain()
                if self._retrying is not None:
                    await asyncio.shield(self._retrying)
        if self._retrying is not None:
            self._retrying.cancel()
        async with self._spooling:
            self._spool.close()

    def _add(self, batcher: Lines, event: Event | EncodedEvent) -> asyncio.Future[None]:
        """Encrypt personal fields; the keys of unknown persons are looked up first."""
        if self.people is None or event.impersonal:
            return batcher.add(self._line(event))
        event = event.decoded() if isinstance(event, EncodedEvent) else event
        if not (whose := named(event)):
            return batcher.add(self._line(event))
        if all(map(self.people.known, whose)):
            return batcher.add(self._line(sealed(event, self.people)))
        learning = asyncio.get_running_loop().create_task(self._learn(batcher, event, whose))
        self._learning.add(learning)
        learning.add_done_callback(self._learning.discard)
        return learning

    async def _learn(self, batcher: Lines, event: Event, whose: frozenset[str]) -> None:
        """Look up or create the person keys. If that fails, remove the personal fields."""
        assert self.people is not None  # noqa: S101
        try:
            await self.people.learn(whose)
            publishable = sealed(event, self.people)
        except (BusDownError, KeyError) as error:
            log.warning("events.redacted", extra={"event_id": event.id, "reason": str(error)})
            publishable = struck(event)
        await batcher.add(self._line(publishable))

    async def _learned(self) -> None:
        if self._learning:
            await asyncio.wait(self._learning)

    def _line(self, event: Event | EncodedEvent) -> Line:
        """Return the subject of an event, its line in its customer's chain, and the trace."""
        last, prev = self._chains.get(event.customer, (0, ""))
        line = b'{"event":"%b","producer":"%b","seq":%d,"prev":"%b",%b' % (
            event.NAME.encode(),
            self._producer,
            last + 1,
            prev.encode(),
            event.encode()[1:],
        )
        self._chains[event.customer] = last + 1, sha256(line).hexdigest()
        return event.subject, line, current().traceparent

    def _flush(self, batch: Batch[Line, None]) -> None:
        by_subject: dict[str, list[bytes]] = {}
        spans: dict[str, list[str]] = {}
        for subject, line, span in batch.items:
            by_subject.setdefault(subject, []).append(line)
            if span:
                spans.setdefault(subject, []).append(span)
        envelopes = [
            Envelope(
                subject,
                f"{self.producer}.{next(self._message_numbers)}",
                b"\n".join(group),
                ",".join(spans[subject][:MAX_LINKS]) if subject in spans else "",
            )
            for subject, group in by_subject.items()
        ]
        batch.run(self._deliver(envelopes, len(batch.items)))

    async def _deliver(self, envelopes: Sequence[Envelope], lines: int) -> Sequence[None]:
        """Return a result for each line when the stream has every envelope."""
        if len(envelopes) > 1:
            await asyncio.gather(*(self._deliver([each], 0) for each in envelopes))
        else:
            try:
                await self._publish(envelopes[0])
            except BusDownError:
                await self._store_undelivered(envelopes[0])
                raise
        return [None] * lines

    async def _store_undelivered(self, envelope: Envelope) -> None:
        self._undelivered.append(envelope)
        EVENTS_UNACKNOWLEDGED.set(len(self._undelivered))
        try:
            async with self._spooling:
                await asyncio.to_thread(self._spool.append, [envelope])
        except (OSError, OutboxFullError) as error:
            self.full = True
            log.error("events.outbox_full", extra={"reason": str(error)})  # noqa: TRY400
        self._retry()

    def _retry(self) -> None:
        if self._retrying is None or self._retrying.done():
            self._retrying = asyncio.get_running_loop().create_task(self._redeliver())

    async def _redeliver(self) -> None:
        while self._undelivered:
            try:
                await self._publish(self._undelivered[0])
            except BusDownError:
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self._undelivered.pop(0)
            EVENTS_UNACKNOWLEDGED.set(len(self._undelivered))
            if not self._undelivered:
                await self._empty_spool()
        log.info("events.delivered")

    async def _empty_spool(self) -> None:
        async with self._spooling:
            if not self._undelivered:  # no event was added while another task had the lock
                self._spool.clear()
                self.full = False


def _seen(future: asyncio.Future[None]) -> None:
    """Retrieve the exception.

    The event is in the outbox, so the publisher of the event does not fail.
    """
    if not future.cancelled():
        future.exception()
