"""The connection of one service to NATS. It contains most uses of the client library."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any

import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import AuthorizationError
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import Error as JetStreamError

from toolbus_common.concurrency import in_time
from toolbus_common.errors import BusDownError
from toolbus_common.nats.client import (
    abandon,
    answerable,
    bus_down,
    cannot_connect,
    client_of,
    closed,
    left,
    servers_of,
    settled,
    until_led,
)
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.lame_duck.departure import Departure
from toolbus_common.nats.pull_consumer import ack_position
from toolbus_common.nats.stream_reader import created, rejection
from toolbus_common.tls_files import TlsFiles

log = logging.getLogger(__name__)

SPANS = "Toolbus-Spans"  # header for `Envelope.spans`
ACK_SECONDS = 4.5  # longer than most elections, and shorter than a shutdown
RESEND_SECONDS = 1.5  # without an acknowledgement, with the same id
PING_SECONDS, PINGS = 1, 3  # unanswered pings after which a server is given up, in 3 to 4 s
LATE_SECONDS = 3.0  # additional time for busy responders
NO_RESPONDERS = "503"
LARGEST_MESSAGE = 8 * 1024 * 1024  # bytes; also configured at the server

Handler = Callable[[bytes, str, str], None]  # payload, subject, reply subject; must not block


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message for the stream. The server drops a second message with the same id.

    `spans` are the traceparents of the events' recorded spans, with commas. They are not stored.
    """

    subject: str
    message_id: str
    payload: bytes
    spans: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """The NATS headers of the message."""
        headers = {"Nats-Msg-Id": self.message_id}
        return headers | {SPANS: self.spans} if self.spans else headers


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message of a stream, as delivered to a durable consumer."""

    subject: str
    data: bytes
    sequence: int
    delivered: int  # number of deliveries, 1 for the first
    pending: int  # number of later messages
    source: Msg
    spans: str = ""  # as in an `Envelope`

    async def done(self, *, wait: bool = False) -> None:
        """Acknowledge the message. With `wait`, wait until the server has confirmed it."""
        await (self.source.ack_sync() if wait else self.source.ack())

    async def again(self, seconds: float) -> None:
        """Ask the server to redeliver the message after `seconds`."""
        await self.source.nak(delay=seconds)


@dataclass(frozen=True, slots=True)
class Extent:
    """The first and last sequence number of a stream, and its creation time."""

    first: int
    last: int
    created: float


class Bus:
    """A NATS connection that reconnects automatically and calls `on_lost` and `on_back`."""

    def __init__(
        self, name: str, url: str, seed: str | None = None, tls: TlsFiles | None = None
    ) -> None:
        self.name, self._url, self._seed, self._tls = name, url, seed, tls
        self._nats = Client()
        self._js: JetStreamContext
        # The futures of acknowledgements with their due times, oldest first.
        self._acks: dict[str, tuple[asyncio.Future[bytes], float]] = {}
        self._ack_timer: asyncio.TimerHandle | None = None
        self._ack_prefix, self._next_ack = "", 0
        self._last_error: Exception | None = None
        self._closer: asyncio.Task[Any] | None = None
        self._departure: Departure | None = None
        self.on_lost: list[Callable[[], None]] = []
        self.on_back: list[Callable[[], None]] = []

    @property
    def connected(self) -> bool:
        """Whether the connection is open."""
        return self._nats.is_connected

    @property
    def max_bytes(self) -> int:
        """The maximum size of a message in bytes, and therefore of a bucket's entry."""
        return self._nats.max_payload

    @property
    def client(self) -> Client:
        """The NATS client, for service registration and provisioning."""
        return self._nats

    async def open(self, patience: float = 30.0) -> None:
        """Connect, retrying for `patience` seconds. Raises `BusDownError`."""
        client = client_of(self._tls)
        identity: dict[str, Any] = {
            "name": self.name,
            "nkeys_seed_str": self._seed,
            "inbox_prefix": f"_INBOX.{self.name}",
            "connect_timeout": 2,
            "dont_randomize": True,  # a reconnection tries the lost server last
        }
        servers = servers_of(self._url)
        departure = Departure(client, lambda: client_of(self._tls), servers, identity)
        try:
            connecting = client.connect(  # retries without end by default
                servers,
                **identity,
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.2,  # type: ignore[arg-type]
                ping_interval=PING_SECONDS,
                max_outstanding_pings=PINGS,
                error_cb=self._error,
                disconnected_cb=self._lost,
                reconnected_cb=self._back,
                lame_duck_mode_cb=departure.begin,
            )
            await in_time(connecting, patience)
        except (OSError, NatsError, TimeoutError) as error:
            await closed(client)
            raise cannot_connect(self._url, self.name, self._last_error or error) from error
        self._nats, self._departure = client, departure
        departure.watch()
        self._js = self._nats.jetstream()
        self._ack_prefix = self._nats.new_inbox()
        await self._nats.subscribe(f"{self._ack_prefix}.*", cb=self._acknowledged)

    async def close(self) -> None:
        """Flush and disconnect."""
        self._closer = asyncio.current_task()
        if self._departure is not None:
            await self._departure.close()
        if self._nats.is_connected:
            try:
                async with asyncio.timeout(2):
                    await self._nats.flush()
            except (NatsError, TimeoutError):
                log.info("bus.not_flushed")
        await closed(self._nats)

    async def publish(self, subject: str, payload: bytes, reply: str = "") -> None:
        """Publish a message without a confirmation. Raises `BusDownError` without a connection."""
        if not self._nats.is_connected:
            raise bus_down()
        await self._nats.publish(subject, payload, reply)

    async def subscribe(
        self,
        subject: str,
        handler: Handler,
        *,
        queue: str = "",
        on_no_responders: Handler | None = None,
    ) -> "Subscription":
        """Subscribe to a subject, and call `handler` with each message.

        `on_no_responders` is called for each request that has this subject as its reply subject and
        that had no responders. A handler replies with the permissions of its own service. It
        therefore receives an empty reply subject unless the subject is a reply inbox.
        """

        async def receive(message: Msg) -> None:
            if message.headers is not None and message.headers.get("Status") == NO_RESPONDERS:
                if on_no_responders is not None:
                    on_no_responders(message.data, message.subject, message.reply)
            else:
                reply = message.reply
                handler(message.data, message.subject, reply if answerable(reply) else "")

        found = await self._nats.subscribe(subject, queue=queue, cb=receive)
        return Subscription(partial(left, self._nats, self.on_lost, found))

    async def settled(self) -> None:
        """Wait until the server has registered all subscriptions made so far."""
        await settled(self._nats, self.on_lost)

    async def request(self, subject: str, payload: bytes, seconds: float) -> bytes:
        """Send one request and return the reply.

        Raises `BusDownError`, `TimeoutError` or `LookupError` (no responders).
        """
        if not self._nats.is_connected:
            raise bus_down()
        try:
            return (await self._nats.request(subject, payload, timeout=seconds)).data
        except nats.errors.NoRespondersError as error:
            raise LookupError(subject) from error

    async def gather(
        self,
        subject: str,
        payload: bytes,
        seconds: float,
        enough: Callable[[list[bytes]], bool] = lambda _: True,
    ) -> list[bytes]:
        """Send a request to all responders and return the replies that arrive within `seconds`.

        If `enough` returns false for them, wait up to `LATE_SECONDS` longer.
        """
        answers: list[bytes] = []
        there = asyncio.Event()

        async def receive(message: Msg) -> None:
            if (message.headers or {}).get("Status") != NO_RESPONDERS:
                answers.append(message.data)
                if enough(answers):
                    there.set()

        inbox = self._nats.new_inbox()
        subscription = await self._nats.subscribe(inbox, cb=receive)
        await self.publish(subject, payload, inbox)
        await asyncio.sleep(seconds)
        if not enough(answers):
            with suppress(TimeoutError):
                await asyncio.wait_for(there.wait(), LATE_SECONDS)
        await subscription.unsubscribe()
        return answers

    async def store(self, envelope: Envelope) -> None:
        """Publish a message to a stream, and wait until it is stored. Raises `BusDownError`.

        While it is not acknowledged, the message is sent again, with the same id.
        """
        await until_led(lambda: self._store(envelope), ACK_SECONDS)

    async def _store(self, envelope: Envelope) -> None:
        """Publish a message once. Raises `BusDownError`, or `LookupError` without a leader."""
        if not self._nats.is_connected:
            raise bus_down()
        self._next_ack += 1
        token = str(self._next_ack)
        loop = asyncio.get_running_loop()
        acknowledged, due = loop.create_future(), loop.time() + RESEND_SECONDS
        self._acks[token] = acknowledged, due
        if self._ack_timer is None:
            self._ack_timer = loop.call_at(due, self._end_late)
        try:
            await self._nats.publish(
                envelope.subject,
                envelope.payload,
                f"{self._ack_prefix}.{token}",
                headers=envelope.headers,
            )
            answer = msgspec.json.decode(await acknowledged)
        except NatsError as error:
            raise bus_down() from error
        finally:
            del self._acks[token]
        if "error" in answer:
            raise rejection(answer["error"], envelope.subject)

    async def bucket(self, name: str) -> Bucket:
        """Open an existing bucket. Raises `BusDownError` if it does not exist."""
        try:
            return Bucket(name, await self._js.key_value(name), self._nats, self.on_back)
        except (NatsError, JetStreamError, TimeoutError) as error:
            fix = "retry, or run 'toolbus provision'"
            raise BusDownError(f"Bucket '{name}' cannot be opened: {error}; {fix}.") from error

    async def newest(self, stream: str) -> int:
        """Return the sequence number of a stream's newest message. Raises `BusDownError`."""
        return (await self.extent(stream)).last

    async def extent(self, stream: str) -> Extent:
        """Return the current extent of a stream. Raises `BusDownError`."""
        try:
            info = await self._js.stream_info(stream)
        except (NatsError, JetStreamError, TimeoutError) as error:
            raise BusDownError(f"Stream '{stream}' cannot be read: {error}; retry.") from error
        at = created(info)
        began = at.timestamp() if at else 0.0
        return Extent(info.state.first_seq, info.state.last_seq, began)

    async def finished(self, stream: str, durable: str) -> float:
        """Return the sequence number up to which a durable consumer has processed everything.

        Return infinity if no message is left. Raises `BusDownError`.
        """
        try:
            info = await self._js.consumer_info(stream, durable)
        except (NatsError, JetStreamError, TimeoutError) as error:
            raise BusDownError(
                f"The state of the consumer '{durable}' cannot be read: {error}; retry."
            ) from error
        if not info.num_pending and not info.num_ack_pending:
            return inf
        return info.ack_floor.stream_seq if info.ack_floor is not None else 0

    async def _acknowledged(self, message: Msg) -> None:
        future, _ = self._acks.get(message.subject.rpartition(".")[2], (None, 0.0))
        if future is None or future.done():
            return
        if message.headers is not None and message.headers.get("Status") == NO_RESPONDERS:
            future.set_exception(LookupError(message.subject))
        else:
            future.set_result(message.data)

    def _end_late(self) -> None:
        """End late acknowledgements; the timer is set again for the oldest of the others."""
        now = asyncio.get_running_loop().time()
        self._end_acks(now, TimeoutError(f"no acknowledgement in {ACK_SECONDS:g} s"))
        later = (due for _, due in self._acks.values() if due > now)
        oldest = next(later, None)
        self._ack_timer = (
            asyncio.get_running_loop().call_at(oldest, self._end_late) if oldest else None
        )

    def _end_acks(self, until: float, cause: Exception) -> None:
        for future, due in self._acks.values():
            if due <= until and not future.done():
                future.set_exception(bus_down(cause))

    async def _lost(self) -> None:
        if self._closer is not None:
            return
        log.warning("bus.lost")
        self._end_acks(inf, ConnectionError("the connection was lost"))
        for callback in self.on_lost:
            callback()

    async def _back(self) -> None:
        log.info("bus.back")
        for callback in list(self.on_back):
            callback()

    async def _error(self, error: Exception) -> None:
        if self._closer is not None and asyncio.current_task() is not self._closer:
            # The client loses a cancellation that coincides with a refused connection. It would
            # then reconnect without end, and the process could not end.
            raise asyncio.CancelledError
        if not self._nats.is_connected:
            abandon(self._nats)
        # While a server starts, connection attempts fail several times a second, so equal errors
        # are logged once.
        if self._nats.is_connected or str(error) != str(self._last_error):
            log.warning("bus.error", extra={"reason": str(error)})
        # The server disconnects after it rejects a user. The error of the disconnection must not
        # hide the rejection.
        if not (isinstance(error, OSError) and isinstance(self._last_error, AuthorizationError)):
            self._last_error = error


@dataclass(frozen=True, slots=True)
class Subscription:
    """An active subscription. `stop` ends it after the messages that the server has sent."""

    stop: Callable[[], Awaitable[Any]]


def stored(message: Msg) -> StoredMessage:
    """Return the message that a durable consumer received."""
    sequence, delivered, pending = ack_position(message.reply)
    spans = (message.headers or {}).get(SPANS, "")
    return StoredMessage(
        message.subject, message.data, sequence, delivered, pending, message, spans
    )
