"""A service: what it hears, serves and answers, declared first and connected only when it runs."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from os import getpid
from time import time
from typing import Any, TypeVar

from toolbus_common.concurrency import end
from toolbus_common.contracts.queries.base import Query, ServiceStatus
from toolbus_common.messaging.call_transport import Call, CallTransport
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.messaging.local_transport import CallHandler, LocalTransport
from toolbus_common.messaging.outbox import Outbox
from toolbus_common.messaging.request_reply import Answer, RequestReply
from toolbus_common.nats.connection import Bus, StoredMessage
from toolbus_common.nats.kv_bucket import Bucket, Change
from toolbus_common.nats.topology import EVENTS
from toolbus_common.settings import Settings

log = logging.getLogger(__name__)

H = TypeVar("H", bound=Callable[..., Any])
Batch = Callable[[list[StoredMessage]], Awaitable[None]]
Watcher = Callable[[Change | None], None]
Resource = Callable[[], AbstractAsyncContextManager[Any]]

QUIET_SECONDS = 0.5


class Service:
    """One service's wiring, over two lanes.

    Calls (`serve_calls`, `calls.ask`, `calls.hand_over`) are on a caller's clock: they use the bus
    directly, or a plain await where the other service lives in this process. Events
    (`consume_events`, `events.publish_durable`, `events.publish`) go through the stream, in
    batches. Questions (`answer_query`, `requests.ask`) are answered at once. Nothing connects
    before `running`.
    """

    def __init__(
        self, name: str, settings: Settings, exchange: LocalTransport | None = None
    ) -> None:
        self.name = name
        self.settings = settings
        seed = settings.seed(name)
        self.bus = Bus(name, settings.nats_url, seed.get_secret_value() if seed else None)
        self.calls = CallTransport(name, self.bus, exchange or LocalTransport())
        self.requests = RequestReply(name, self.bus)
        self.events = EventPublisher(
            self.bus.store,
            Outbox(settings.state_dir / "spool" / f"{name}.events", settings.spool_bytes),
        )
        self._serves: list[tuple[type[Call], CallHandler]] = []
        self._answers: dict[type[Query], Answer] = {}
        self._hears: list[tuple[int, float, float, Batch]] = []
        self._watches: list[tuple[str, Watcher]] = []
        self._resources: list[Resource] = []
        self._leaves: list[Callable[[], Awaitable[None]]] = []
        self._condition: Callable[[], Awaitable[None]] | None = None
        self._taking_part = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._caught_up: list[asyncio.Event] = []
        self._heard: dict[str, dict[Watcher, int]] = {}  # of each bucket, by who hears it
        self._since = time()
        self.ready = False
        self.details: Callable[[], dict[str, Any]] = dict
        self.draining: list[Callable[[], None]] = []  # last words, before events are delivered
        self.why_not: Callable[[], str] = str  # a sentence when the service cannot do its work now

    # -- declaring ---------------------------------------------------------------------------

    def serve_calls(self, contract: type[Call]) -> Callable[[H], H]:
        """Decorate the handler of a call contract: `async (call, reply)`, every server's calls."""

        def declare(handler: H) -> H:
            self._serves.append((contract, handler))
            return handler

        return declare

    def answer_query(self, question: type[Query]) -> Callable[[H], H]:
        """Decorate the handler of a question: `async (question) -> answer`."""

        def declare(handler: H) -> H:
            self._answers[question] = handler
            return handler

        return declare

    def consume_events(
        self, *, most: int = 500, seconds: float = QUIET_SECONDS, pause: float = 0.0
    ) -> Callable[[H], H]:
        """Decorate the handler of this service's durable consumer: `async (messages)`.

        The handler acknowledges what it has dealt with; an exception sends the batch again.
        `pause` is seconds between pulls that were not full: events gather meanwhile, and one batch
        of a hundred costs little more than one of one.
        """

        def declare(handler: H) -> H:
            self._hears.append((most, seconds, pause, handler))
            return handler

        return declare

    def watch_bucket(self, bucket: str) -> Callable[[H], H]:
        """Decorate a sync watcher of a bucket; None tells it that all present entries came."""

        def declare(watcher: H) -> H:
            self._watches.append((bucket, watcher))
            return watcher

        return declare

    def add_resource(self, resource: Resource) -> None:
        """Enter a resource once the bus is there, leave it after the last call ended."""
        self._resources.append(resource)

    def on_leave(self, step: Callable[[], Awaitable[None]]) -> None:
        """Await a step as soon as this service stops being ready, before anything else drains."""
        self._leaves.append(step)

    def wait_until_ready(self, condition: Callable[[], Awaitable[None]]) -> None:
        """Hear and answer only once this returns; until then `why_not` says what is missing."""
        self._condition = condition

    async def bucket(self, name: str) -> Bucket:
        """A declared bucket, once the service runs."""
        return await self.bus.bucket(name)

    def spawn(self, work: Any) -> None:
        """Run a coroutine beside everything else, to its end or to the service's."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- running -----------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Service"]:
        """The service at work; leaving drains it: no new work, finish, deliver events, go."""
        await self.bus.open()
        try:
            await self.calls.open()
            await self._watch_all()
            async with AsyncExitStack() as resources:
                for resource in self._resources:
                    await resources.enter_async_context(resource())
                await self._begin()
                try:
                    yield self
                finally:
                    await self._drain()
        finally:
            await self.bus.close()

    def status(self) -> ServiceStatus:
        """How this service is, in this process."""
        reason = self.why_not() if self.ready else "starting or draining"
        if not reason and not self._taking_part:
            reason = "about to hear and answer"
        return ServiceStatus(
            service=self.name,
            instance=self.events.producer,
            pid=getpid(),
            ready=self.ready and not reason and self.bus.connected,
            since=self._since,
            reason=reason if self.bus.connected else "the bus is down",
            details=self.details(),
            heard={
                name: min(each.values()) for name, each in self._heard.items() if any(each.values())
            },
        )

    async def _watch_all(self) -> None:
        for name, watcher in self._watches:
            event = asyncio.Event()
            self._caught_up.append(event)
            self._heard.setdefault(name, {})[watcher] = 0
            self.spawn(self._watch(name, await self.bus.bucket(name), watcher, event))
        async with asyncio.timeout(30):
            for event in self._caught_up:
                await event.wait()

    async def _watch(
        self, name: str, bucket: Bucket, watcher: Watcher, caught_up: asyncio.Event
    ) -> None:
        while True:
            try:
                async for change in bucket.watch():
                    watcher(change)
                    if change is None:
                        caught_up.set()
                    else:
                        self._heard[name][watcher] = change.revision
            except Exception:
                log.exception("service.watch_failed")
            await asyncio.sleep(0.2)

    async def _begin(self) -> None:
        self.events.restore()
        for contract, handler in self._serves:
            await self.calls.serve(contract, "*", handler, self.name)
        await self.requests.open(self.status)
        if self._condition is None:
            await self._take_part()
        else:
            self.spawn(self._take_part_after(self._condition))
        self.ready = True
        log.info("service.ready", extra={"pid": getpid(), "instance": self.events.producer})

    async def _take_part(self) -> None:
        await self.requests.answer(self._answers)
        for most, seconds, pause, batch in self._hears:
            self.spawn(self._hear(most, seconds, pause, batch))
        await self.bus.settled()  # who sees this service ready may ask it at once
        self._taking_part = True

    async def _take_part_after(self, condition: Callable[[], Awaitable[None]]) -> None:
        try:
            await condition()
            await self._take_part()
        except Exception:
            self.ready = False
            log.exception("service.not_begun")

    async def _hear(self, most: int, seconds: float, pause: float, handler: Batch) -> None:
        async for messages in self.bus.consume(EVENTS, self.name, most, seconds):
            try:
                await handler(messages)
            except Exception:
                log.exception("service.batch_failed", extra={"messages": len(messages)})
                await self._again(messages)
            if len(messages) < most:
                await asyncio.sleep(pause)

    async def _again(self, messages: list[StoredMessage]) -> None:
        await asyncio.sleep(1.0)
        for message in messages:
            with suppress(Exception):  # the bus may be gone: ack_wait sends it again then
                await message.again(1.0)

    async def _drain(self) -> None:
        self.ready = False
        log.info("service.draining", extra={"in_flight": self.calls.in_flight})
        for step in self._leaves:
            try:
                await step()
            except Exception:
                log.exception("service.leave_failed")
        await self.requests.close()
        await self.calls.drain(self.settings.drain_seconds)
        for last in self.draining:
            last()
        await self.events.close(2.0)
        await end(*self._tasks)
