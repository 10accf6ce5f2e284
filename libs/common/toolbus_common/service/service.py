"""A service: its handlers, consumers and publishers, connected when it runs."""

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
from toolbus_common.messaging.local_transport import CallHandler
from toolbus_common.messaging.outbox import Outbox
from toolbus_common.messaging.request_reply import Answer, RequestReply
from toolbus_common.nats.connection import Bus, StoredMessage
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.topology import EVENTS
from toolbus_common.service.bucket_watch import BucketWatch
from toolbus_common.service.process_context import P, ProcessContext
from toolbus_common.settings import Settings

log = logging.getLogger(__name__)

H = TypeVar("H", bound=Callable[..., Any])
Batch = Callable[[list[StoredMessage]], Awaitable[None]]
Resource = Callable[[], AbstractAsyncContextManager[Any]]

QUIET_SECONDS = 0.5


class Service:
    """The wiring of one service.

    Calls (`serve_calls`, `calls.request`, `calls.hand_over`) have a caller that waits: they use
    NATS directly, or a plain await if the other service runs in this process. Events
    (`consume_events`, `events.publish_durable`, `events.publish`) go through the stream, in
    batches. Queries (`answer_query`, `requests.request`) get a reply at once. Nothing connects
    before `running`.
    """

    def __init__(
        self, name: str, settings: Settings, process: ProcessContext | None = None
    ) -> None:
        self.name = name
        self.settings = settings
        seed = settings.seed(name)
        self.bus = Bus(name, settings.nats_url, seed.get_secret_value() if seed else None)
        self._process = process or ProcessContext()
        self.calls = CallTransport(name, self.bus, self._process.calls)
        self.requests = RequestReply(name, self.bus)
        self.events = EventPublisher(
            self.bus.store,
            Outbox(settings.state_dir / "spool" / f"{name}.events", settings.spool_bytes),
        )
        self._call_handlers: list[tuple[type[Call], CallHandler]] = []
        self._query_handlers: dict[type[Query], Answer] = {}
        self._consumers: list[tuple[int, float, float, Batch]] = []
        self._watches: list[BucketWatch] = []
        self._resources: list[Resource] = []
        self._leave_steps: list[Callable[[], Awaitable[None]]] = []
        self._condition: Callable[[], Awaitable[None]] | None = None
        self._serving = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._since = time()
        self.ready = False
        self.details: Callable[[], dict[str, Any]] = dict
        self.draining: list[Callable[[], None]] = []  # called before the last events are delivered
        self.why_not: Callable[[], str] = (
            str  # the reason why the service cannot work now; empty if it can
        )

    # -- wiring -----------------------------------------------------------------------------

    def serve_calls(self, contract: type[Call]) -> Callable[[H], H]:
        """Decorate the handler of a call contract: `async (call, reply)`, for every server."""

        def register(handler: H) -> H:
            self._call_handlers.append((contract, handler))
            return handler

        return register

    def answer_query(self, query: type[Query]) -> Callable[[H], H]:
        """Decorate the handler of a query: `async (query) -> reply`."""

        def register(handler: H) -> H:
            self._query_handlers[query] = handler
            return handler

        return register

    def consume_events(
        self, *, max_messages: int = 500, seconds: float = QUIET_SECONDS, pause: float = 0.0
    ) -> Callable[[H], H]:
        """Decorate the handler of this service's durable consumer: `async (messages)`.

        The handler acknowledges the messages it has processed; after an exception the batch is
        redelivered. `pause` is seconds between pulls that were not full: a longer
        pause makes batches larger, and a large batch costs little more than a small one.
        """

        def register(handler: H) -> H:
            self._consumers.append((max_messages, seconds, pause, handler))
            return handler

        return register

    def watch_bucket(self, bucket: str) -> Callable[[H], H]:
        """Decorate a sync watcher of a bucket; None follows after the current entries."""

        def register(watcher: H) -> H:
            self._watches.append(BucketWatch(bucket, watcher))
            return watcher

        return register

    def share_projection(self, bucket: str, kind: type[P]) -> P:
        """Return the process's only `kind`, updated from a bucket while this service runs.

        The services of a process share one watch per projection.
        """
        projection, watch = self._process.projection(bucket, kind)
        self._watches.append(watch)
        return projection

    def add_resource(self, resource: Resource) -> None:
        """Enter a resource after connecting; leave it after the last call ended."""
        self._resources.append(resource)

    def on_leave(self, step: Callable[[], Awaitable[None]]) -> None:
        """Register a step to await when this service stops being ready, before it drains."""
        self._leave_steps.append(step)

    def wait_until_ready(self, condition: Callable[[], Awaitable[None]]) -> None:
        """Consume and reply only after `condition` returns; until then `why_not` is the reason."""
        self._condition = condition

    async def bucket(self, name: str) -> Bucket:
        """Open a bucket; the service must be running."""
        return await self.bus.bucket(name)

    def spawn(self, work: Any) -> None:
        """Run a coroutine concurrently, until it ends or the service does."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- running -----------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Service"]:
        """Run the service; on leaving: accept no new work, finish, deliver events, disconnect."""
        await self.bus.open()
        try:
            await self.calls.open()
            await self._watch_all()
            async with AsyncExitStack() as resources:
                for resource in self._resources:
                    await resources.enter_async_context(resource())
                await self._start()
                try:
                    yield self
                finally:
                    await self._drain()
            await self.calls.close()
        finally:
            await self.bus.close()

    @property
    def is_ready(self) -> bool:
        """Whether this replica can work. Reads flags only, so that any thread may call it."""
        connected = self.bus.connected and all(watch.connected for watch in self._watches)
        return self.ready and self._serving and connected and not self.why_not()

    def status(self) -> ServiceStatus:
        """Return the status of this replica."""
        connected = self.bus.connected and all(watch.connected for watch in self._watches)
        reason = self.why_not() if self.ready else "starting or draining"
        if not reason and not self._serving:
            reason = "starting to serve"
        return ServiceStatus(
            service=self.name,
            instance=self.events.producer,
            pid=getpid(),
            ready=self.ready and not reason and connected,
            since=self._since,
            reason=reason if connected else "the bus is down",
            details=self.details(),
            revisions=self._watched_revisions(),
        )

    def _watched_revisions(self) -> dict[str, int]:
        """Return the newest revision that all watches of each bucket have received."""
        received: dict[str, list[int]] = {}
        for watch in self._watches:
            received.setdefault(watch.bucket, []).append(watch.revision)
        return {bucket: min(each) for bucket, each in received.items() if any(each)}

    async def _watch_all(self) -> None:
        for watch in self._watches:
            self.spawn(watch.run(self.bus, await self.bus.bucket(watch.bucket)))
        async with asyncio.timeout(30):
            for watch in self._watches:
                await watch.caught_up.wait()

    async def _start(self) -> None:
        self.events.restore()
        for contract, handler in self._call_handlers:
            await self.calls.serve(contract, "*", handler, self.name)
        await self.requests.open(self.status)
        if self._condition is None:
            await self._start_serving()
        else:
            self.spawn(self._start_serving_after(self._condition))
        self.ready = True
        log.info("service.ready", extra={"pid": getpid(), "instance": self.events.producer})

    async def _start_serving(self) -> None:
        await self.requests.answer(self._query_handlers)
        for max_messages, seconds, pause, batch in self._consumers:
            self.spawn(self._consume(max_messages, seconds, pause, batch))
        await self.bus.settled()  # a client that sees this service ready may send a request at once
        self._serving = True

    async def _start_serving_after(self, condition: Callable[[], Awaitable[None]]) -> None:
        try:
            await condition()
            await self._start_serving()
        except Exception:
            self.ready = False
            log.exception("service.not_started")

    async def _consume(
        self, max_messages: int, seconds: float, pause: float, handler: Batch
    ) -> None:
        async for messages in self.bus.consume(EVENTS, self.name, max_messages, seconds):
            try:
                await handler(messages)
            except Exception:
                log.exception("service.batch_failed", extra={"messages": len(messages)})
                await self._again(messages)
            if len(messages) < max_messages:
                await asyncio.sleep(pause)

    async def _again(self, messages: list[StoredMessage]) -> None:
        await asyncio.sleep(1.0)
        for message in messages:
            with suppress(Exception):  # without a connection, ack_wait redelivers the message
                await message.again(1.0)

    async def _drain(self) -> None:
        self.ready = False
        log.info("service.draining", extra={"in_flight": self.calls.in_flight})
        for step in self._leave_steps:
            try:
                await step()
            except Exception:
                log.exception("service.drain_failed")
        await self.requests.close()
        await self.calls.drain(self.settings.drain_seconds)
        for last in self.draining:
            last()
        await self.events.close(2.0)
        await end(*self._tasks)
