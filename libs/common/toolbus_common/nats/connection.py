"""One service's connection to NATS: the only module that knows the client library."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
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
from toolbus_common.nats.flush import settled
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.pull_consumer import PullConsumer, place

log = logging.getLogger(__name__)

SPANS = "Toolbus-Spans"  # the header with an envelope's `spans`
ACK_SECONDS = 3.0
LATE_SECONDS = 3.0  # for who is too busy to answer soon
NO_RESPONDERS = "503"
_ANSWERS = ("_INBOX.", "tb.reply.")
LARGEST_MESSAGE = 8 * 1024 * 1024  # bytes; the server is configured with the same

Handler = Callable[[bytes, str, str], None]  # payload, subject, reply subject; must not block


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message for the stream. The id makes a second copy harmless.

    `spans` are the traceparents of recorded spans it tells of, apart by commas; they are not kept.
    """

    subject: str
    message_id: str
    payload: bytes
    spans: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """What it says beside its payload."""
        told = {"Nats-Msg-Id": self.message_id}
        return told | {SPANS: self.spans} if self.spans else told


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message of a stream, as a durable consumer sees it."""

    subject: str
    data: bytes
    sequence: int
    delivered: int  # 1 the first time
    pending: int  # messages behind this one
    source: Msg
    spans: str = ""  # as in an `Envelope`

    async def done(self, *, wait: bool = False) -> None:
        """It need not come again; with `wait` only once the server has noted that."""
        await (self.source.ack_sync() if wait else self.source.ack())

    async def again(self, seconds: float) -> None:
        """Send it again after a while."""
        await self.source.nak(delay=seconds)


@dataclass(frozen=True, slots=True)
class Extent:
    """The numbers of a stream's oldest and newest message, and when the stream was made."""

    first: int
    last: int
    created: float


class Bus:
    """A connection that comes back by itself, and says so when it is lost."""

    def __init__(self, name: str, url: str, seed: str | None = None) -> None:
        self.name = name
        self._url = url
        self._seed = seed
        self._nats = Client()
        self._js: JetStreamContext
        self._acks: dict[str, asyncio.Future[bytes]] = {}
        self._ack_prefix = ""
        self._next_ack = 0
        self._last_error: Exception | None = None
        self._closer: asyncio.Task[Any] | None = None
        self.on_lost: list[Callable[[], None]] = []
        self.on_back: list[Callable[[], None]] = []

    @property
    def connected(self) -> bool:
        """Whether the server is there right now."""
        return self._nats.is_connected

    @property
    def most_bytes(self) -> int:
        """The most the server takes in one message, and so in one entry of a bucket."""
        return self._nats.max_payload

    @property
    def client(self) -> Client:
        """The client itself, for what only it can do (service registration, provisioning)."""
        return self._nats

    async def open(self, patience: float = 30.0) -> None:
        """Connect, trying again for `patience` seconds. Raises `BusDownError`."""
        client = Client()
        try:
            connecting = client.connect(  # which by itself would try for ever
                self._url,
                name=self.name,
                nkeys_seed_str=self._seed,
                inbox_prefix=f"_INBOX.{self.name}",
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.2,  # type: ignore[arg-type]
                connect_timeout=2,
                ping_interval=5,
                error_cb=self._error,
                disconnected_cb=self._lost,
                reconnected_cb=self._back,
                allow_reconnect=True,
            )
            await in_time(connecting, patience)
        except (OSError, NatsError, TimeoutError) as error:
            await client.close()
            why: object = self._last_error or error
            if isinstance(why, ConnectionResetError):  # its reason was lost with the connection
                why = f"{why}; a server does so when it refuses a user: is its seed the right one?"
            raise BusDownError(
                f"NATS at {self._url} cannot be joined as {self.name}: {why}"
            ) from error
        self._nats = client
        self._js = self._nats.jetstream()
        self._ack_prefix = self._nats.new_inbox()
        await self._nats.subscribe(f"{self._ack_prefix}.*", cb=self._acknowledged)

    async def close(self) -> None:
        """Flush and leave."""
        self._closer = asyncio.current_task()
        if self._nats.is_connected:
            try:
                async with asyncio.timeout(2):
                    await self._nats.flush()
            except (NatsError, TimeoutError):
                log.info("bus.not_flushed")
        await self._nats.close()

    async def publish(self, subject: str, payload: bytes, reply: str = "") -> None:
        """Say something, not waiting. Raises `BusDownError` at once while disconnected."""
        if not self._nats.is_connected:
            raise bus_down()
        await self._nats.publish(subject, payload, reply)

    async def subscribe(
        self, subject: str, handler: Handler, *, queue: str = "", on_nobody: Handler | None = None
    ) -> "Subscription":
        """Hear a subject. `on_nobody` hears that what was sent with this reply found nobody.

        A handler is told no reply subject that is none: it would write there with its own rights.
        """

        async def hear(message: Msg) -> None:
            if message.headers is not None and message.headers.get("Status") == NO_RESPONDERS:
                if on_nobody is not None:
                    on_nobody(message.data, message.subject, message.reply)
            else:
                reply = message.reply
                handler(message.data, message.subject, reply if answerable(reply) else "")

        found = await self._nats.subscribe(subject, queue=queue, cb=hear)
        return Subscription(found.unsubscribe)

    async def settled(self) -> None:
        """Return once the server knows every subscription made so far."""
        await settled(self._nats, self.on_lost)

    async def request(self, subject: str, payload: bytes, seconds: float) -> bytes:
        """Ask once. Raises `BusDownError`, `TimeoutError` or `LookupError` (nobody there)."""
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
        """Ask everyone and take the answers that come within `seconds`.

        Where those are not `enough`, so many more are waited for as come in `LATE_SECONDS`.
        """
        answers: list[bytes] = []
        there = asyncio.Event()

        async def hear(message: Msg) -> None:
            if message.headers is None:
                answers.append(message.data)
                if enough(answers):
                    there.set()

        inbox = self._nats.new_inbox()
        subscription = await self._nats.subscribe(inbox, cb=hear)
        await self.publish(subject, payload, inbox)
        await asyncio.sleep(seconds)
        if not enough(answers):
            with suppress(TimeoutError):
                await asyncio.wait_for(there.wait(), LATE_SECONDS)
        await subscription.unsubscribe()
        return answers

    async def store(self, envelope: Envelope) -> None:
        """Publish to a stream and wait until the stream has it. Raises `BusDownError`."""
        if not self._nats.is_connected:
            raise bus_down()
        self._next_ack += 1
        token = str(self._next_ack)
        acknowledged = self._acks[token] = asyncio.get_running_loop().create_future()
        try:
            await self._nats.publish(
                envelope.subject,
                envelope.payload,
                f"{self._ack_prefix}.{token}",
                headers=envelope.headers,
            )
            async with asyncio.timeout(ACK_SECONDS):
                answer = msgspec.json.decode(await acknowledged)
        except (NatsError, TimeoutError) as error:
            raise bus_down() from error
        finally:
            del self._acks[token]
        if "error" in answer:
            raise BusDownError(f"The stream refused an event: {answer['error'].get('description')}")

    async def bucket(self, name: str) -> Bucket:
        """A declared bucket. Raises `BusDownError` when it is not there."""
        try:
            return Bucket(name, await self._js.key_value(name), self._nats, self.on_back)
        except (NatsError, JetStreamError, TimeoutError) as error:
            raise BusDownError(f"Bucket {name} cannot be opened: {error}") from error

    async def consume(
        self, stream: str, durable: str, most: int, seconds: float
    ) -> AsyncIterator[list[StoredMessage]]:
        """Batches of a declared durable consumer, without end; an empty batch when it is quiet."""
        pulls = PullConsumer(self._nats, stream, durable)
        await pulls.open()
        try:
            while True:
                try:
                    messages = await pulls.next(most, seconds)
                except (NatsError, BusDownError) as error:
                    log.warning(
                        "bus.fetch_failed", extra={"durable": durable, "reason": str(error)}
                    )
                    await asyncio.sleep(0.2)
                    messages = []
                yield [_stored(message) for message in messages]
        finally:
            await pulls.close()

    async def newest(self, stream: str) -> int:
        """The number of a stream's newest message. Raises `BusDownError`."""
        return (await self.extent(stream)).last

    async def extent(self, stream: str) -> Extent:
        """Return which messages a stream has now. Raises `BusDownError`."""
        try:
            info = await self._js.stream_info(stream)
        except (NatsError, JetStreamError, TimeoutError) as error:
            raise BusDownError(f"The stream {stream} cannot be looked at: {error}") from error
        created: datetime | None = info.created
        began = created.timestamp() if created else 0.0
        return Extent(info.state.first_seq, info.state.last_seq, began)

    async def finished(self, stream: str, durable: str) -> float:
        """Every message up to this number a durable consumer has acknowledged or does not hear.

        Raises `BusDownError`.
        """
        try:
            info = await self._js.consumer_info(stream, durable)
        except (NatsError, JetStreamError, TimeoutError) as error:
            raise BusDownError(f"The consumer {durable} cannot be looked at: {error}") from error
        if not info.num_pending and not info.num_ack_pending:
            return inf
        return info.ack_floor.stream_seq if info.ack_floor is not None else 0

    async def _acknowledged(self, message: Msg) -> None:
        future = self._acks.get(message.subject.rpartition(".")[2])
        if future is None or future.done():
            return
        if message.headers is not None and message.headers.get("Status") == NO_RESPONDERS:
            future.set_exception(
                BusDownError("The stream EVENTS is missing: run toolbus provision")
            )
        else:
            future.set_result(message.data)

    async def _lost(self) -> None:
        if self._closer is not None:
            return
        log.warning("bus.lost")
        for future in self._acks.values():
            if not future.done():
                future.set_exception(bus_down())
        for callback in self.on_lost:
            callback()

    async def _back(self) -> None:
        log.info("bus.back")
        for callback in list(self.on_back):
            callback()

    async def _error(self, error: Exception) -> None:
        if self._closer is not None and asyncio.current_task() is not self._closer:
            # A cancellation that meets a refused connection is lost in the client, which would
            # then try to reconnect for ever and keep the process from ending.
            raise asyncio.CancelledError
        if not self._nats.is_connected:
            _abandon(self._nats)
        # The first try to connect fails several times a second while a server starts.
        if self._nats.is_connected or str(error) != str(self._last_error):
            log.warning("bus.error", extra={"reason": str(error)})
        # The server closes after a refusal; the closing must not hide why.
        if not (isinstance(error, OSError) and isinstance(self._last_error, AuthorizationError)):
            self._last_error = error


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subject being heard."""

    stop: Callable[[], Awaitable[Any]]


def answerable(reply: str) -> bool:
    """Return whether a subject that somebody else names is one for answers, and nothing else."""
    return reply.startswith(_ANSWERS)


def _abandon(client: Client) -> None:
    """Close a connection that did not begin well, which the client itself would forget open."""
    begun: Any = client._transport  # noqa: SLF001 - it has no other way
    if begun is not None:
        begun.close()


def bus_down() -> BusDownError:
    """The sentence for a bus that is not there."""
    return BusDownError("The bus is down, so the call cannot be recorded; nothing was sent. Retry.")


def _stored(message: Msg) -> StoredMessage:
    sequence, delivered, pending = place(message.reply)
    spans = (message.headers or {}).get(SPANS, "")
    return StoredMessage(
        message.subject, message.data, sequence, delivered, pending, message, spans
    )
