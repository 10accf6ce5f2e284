"""Service: its handlers, consumers and publishers. They connect when the service runs."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from os import getpid
from pathlib import Path
from time import monotonic, time
from typing import Any, TypeVar

from toolbus_common.concurrency import Tasks, end
from toolbus_common.contracts.queries.base import ServiceStatus, StatusQuery
from toolbus_common.crypto.key_file import KeyFiles
from toolbus_common.errors import BusDownError
from toolbus_common.messaging.broker import ServiceBroker
from toolbus_common.messaging.call_transport import Call, CallTransport
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.messaging.local_transport import CallHandler
from toolbus_common.messaging.outbox import Outbox
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.topology import INSTALLATION
from toolbus_common.service.bucket_watch import BucketWatch
from toolbus_common.service.process_context import P, ProcessContext, Projection
from toolbus_common.service.shared_keys import SharedKeys, fingerprint
from toolbus_common.settings import Settings

log = logging.getLogger(__name__)

H = TypeVar("H", bound=Callable[..., Any])
START_SECONDS = 30.0  # to read buckets at the start: a cluster may be electing its leaders
Resource = Callable[[], AbstractAsyncContextManager[Any]]


class Service:
    """The handlers and connections of one service.

    For a call (`serve_calls`, `calls.request`, `calls.hand_over`), a caller waits. Calls use NATS
    without a stream, or a direct function call if the other service runs in this process. Events
    (`broker.events`, `events.publish_durable`, `events.publish`) are stored in the stream, in
    batches. Queries (`broker.subscriber`, `requests.request`) get a reply immediately. Nothing
    connects before `running`.
    """

    def __init__(
        self, name: str, settings: Settings, process: ProcessContext | None = None
    ) -> None:
        self.name = name
        self.settings = settings
        seed = settings.seed(name)
        self.bus = Bus(
            name,
            settings.nats_url,
            seed.get_secret_value() if seed else None,
            settings.nats_tls,
        )
        self._process = process or ProcessContext()
        self.calls = CallTransport(name, self.bus, self._process.calls)
        self.broker = ServiceBroker(self.bus)
        self.requests = RequestReply(name, self.bus)
        self.events = EventPublisher(
            self.bus.store,
            Outbox(settings.state_dir / "spool" / f"{name}.events", settings.spool_bytes),
        )
        self._call_handlers: list[tuple[type[Call], CallHandler]] = []
        self._watches: list[BucketWatch] = []
        self._projections: list[Projection] = []
        self._resources: list[Resource] = []
        self._leave_steps: list[Callable[[], Awaitable[None]]] = []
        self._condition: Callable[[], Awaitable[None]] | None = None
        self._starting: asyncio.Task[None] | None = None
        self._serving = False
        self._tasks = Tasks()
        self._since = time()
        self.shared_keys = SharedKeys()
        self._key_files: dict[str, KeyFiles] = {}
        self._refusal = ""  # why this replica may not work
        self.ready = False
        self.details: Callable[[], dict[str, Any]] = dict
        self.person_keys_fault: Callable[[], str] = str  # empty if names can be encrypted
        self.announcing: list[Callable[[], None]] = []  # called as soon as the service leaves
        self.draining: list[Callable[[], None]] = []  # called before the last events are delivered
        # Returns the reason why the service is not ready; empty if it is ready.
        self.why_not: Callable[[], str] = str
        # Every replica replies, even while it starts or drains.
        self._status_subscriber = self.broker.subscriber(StatusQuery.SUBJECT)
        self._status_subscriber(self._show_status)

    # -- wiring -----------------------------------------------------------------------------

    def serve_calls(self, contract: type[Call]) -> Callable[[H], H]:
        """Return a decorator for the handler of a call contract: `async (call, reply)`.

        The handler receives the calls of all servers.
        """

        def register(handler: H) -> H:
            self._call_handlers.append((contract, handler))
            return handler

        return register

    def watch_bucket(self, bucket: str) -> Callable[[H], H]:
        """Return a decorator for a synchronous watcher of a bucket.

        The watcher receives None after the entries that exist at the start.
        """

        def register(watcher: H) -> H:
            self._watches.append(BucketWatch(bucket, watcher))
            return watcher

        return register

    def share_projection(self, bucket: str, kind: type[P]) -> P:
        """Return the projection of this kind for a bucket. It is updated while this service runs.

        The services of a process share one projection and one watch.
        """
        projection, watch = self._process.projection(bucket, kind)
        self._projections.append(projection)
        self._watches.append(watch)
        return projection

    def key_file(self, name: str, path: Path) -> KeyFiles:
        """Return the keys in a file that may be replaced while the service runs.

        The status of the service has their digests. Raises `ValueError`.
        """
        return self._key_files.setdefault(name, KeyFiles(path))

    def add_resource(self, resource: Resource) -> None:
        """Register a resource. It is opened after connecting, and closed after the last call."""
        self._resources.append(resource)

    def on_leave(self, step: Callable[[], Awaitable[None]]) -> None:
        """Register a step to run when this service starts to drain."""
        self._leave_steps.append(step)

    def wait_until_ready(self, condition: Callable[[], Awaitable[None]]) -> None:
        """Set a condition to wait for before the service processes events and queries.

        While the service waits, `why_not` returns the reason.
        """
        self._condition = condition

    async def bucket(self, name: str) -> Bucket:
        """Return an opened bucket. The service must be running."""
        return await self.bus.bucket(name)

    def spawn(self, work: Any) -> None:
        """Run a coroutine in the background, at most until the service ends."""
        self._tasks.start(work)

    # -- running -----------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Service"]:
        """Run the service until the context ends.

        At the end the service rejects new work, completes its calls, delivers its events, and
        disconnects.
        """
        await self.bus.open()
        try:
            await self.calls.open()
            await self.broker.connect()
            await self._watch_all()
            try:
                if await self._refused():
                    yield self
                    return
                async with AsyncExitStack() as resources:
                    for resource in self._resources:
                        await resources.enter_async_context(resource())
                    await self._start()
                    try:
                        yield self
                    finally:
                        await self._drain()
            finally:
                if self._refusal:
                    await self.broker.stop()
                    await self._tasks.end()
                await self.calls.close()
        finally:
            await self.bus.close()

    async def _refused(self) -> bool:
        """Return whether this replica may not work. It then answers status queries only."""
        self._refusal = self._unreadable_entry()  # it could reject callers without it
        if self.shared_keys and not self._refusal:
            bucket = await self.bucket(INSTALLATION)
            self._refusal = await self._compared_keys(bucket)
        if self._refusal:
            log.error("service.refused", extra={"reason": self._refusal})
            await self._status_subscriber.start()
        return bool(self._refusal)

    async def _compared_keys(self, bucket: Bucket) -> str:
        """Compare the shared keys, and retry while the bucket has no leader yet."""
        until = monotonic() + START_SECONDS
        while True:
            try:
                return await self.shared_keys.refusal(bucket, self.name)
            except BusDownError as error:
                if monotonic() > until:
                    raise
                log.warning("service.keys_not_compared", extra={"reason": error.reason})
                await asyncio.sleep(1.0)

    def announce_end(self) -> None:
        """End the readiness, and announce to clients that this replica leaves. It still serves."""
        self.ready = False
        for announce in self.announcing:
            announce()

    @property
    def is_ready(self) -> bool:
        """Whether this replica is ready. Any thread may read this property."""
        return not self._unready_reason()

    def status(self) -> ServiceStatus:
        """Return the status of this replica."""
        reason = self._unready_reason()
        faults = {
            "person_keys": self.person_keys_fault(),
            "configuration": self._unreadable_entry(),
        }
        return ServiceStatus(
            service=self.name,
            instance=self.events.producer,
            pid=getpid(),
            ready=not reason,
            since=self._since,
            reason=reason,
            details=self.details() | {name: fault for name, fault in faults.items() if fault},
            revisions=self._watched_revisions(),
            keys=self.shared_keys.digests
            | {name: _digests(name, files) for name, files in self._key_files.items()},
        )

    def _unready_reason(self) -> str:
        """Return the reason why this replica is not ready; empty if it is ready."""
        if not (self.bus.connected and all(watch.connected for watch in self._watches)):
            return "the bus is down"
        if self._refusal:
            return self._refusal
        if not self.ready:
            return "starting or draining"
        return self.why_not() or ("" if self._serving else "starting to serve")

    def _unreadable_entry(self) -> str:
        """Return why an entry of a bucket cannot be used; empty if all can."""
        return next((each.fault for each in self._projections if each.fault), "")

    async def _show_status(self, _query: StatusQuery) -> ServiceStatus:
        return self.status()

    def _watched_revisions(self) -> dict[str, int]:
        """Return for each bucket the newest revision that all its watches have received."""
        received: dict[str, list[int]] = {}
        for watch in self._watches:
            received.setdefault(watch.bucket, []).append(watch.revision)
        return {bucket: min(each) for bucket, each in received.items() if any(each)}

    async def _watch_all(self) -> None:
        for watch in self._watches:
            self.spawn(watch.run(self.bus, await self.bus.bucket(watch.bucket)))
        async with asyncio.timeout(START_SECONDS):
            for watch in self._watches:
                await watch.caught_up.wait()

    async def _start(self) -> None:
        self.events.restore()
        for contract, handler in self._call_handlers:
            await self.calls.serve(contract, "*", handler, self.name)
        await self._status_subscriber.start()
        if self._condition is None:
            await self._start_serving()
        else:
            serving = self._start_serving_after(self._condition)
            self._starting = asyncio.create_task(serving)
        self.ready = True
        log.info("service.ready", extra={"pid": getpid(), "instance": self.events.producer})

    async def _start_serving(self) -> None:
        await self.broker.start()
        await self.bus.settled()  # a client can send a request as soon as the service is ready
        self._serving = True

    async def _start_serving_after(self, condition: Callable[[], Awaitable[None]]) -> None:
        try:
            await condition()
            await self._start_serving()
        except Exception:
            self.ready = False
            log.exception("service.not_started")

    async def _drain(self) -> None:
        self.announce_end()
        log.info("service.draining", extra={"in_flight": self.calls.in_flight})
        if self._starting is not None:
            await end(self._starting)
        for step in self._leave_steps:
            try:
                await step()
            except Exception:
                log.exception("service.drain_failed")
        await self.broker.stop_queries(self._status_subscriber)
        await self.calls.drain(self.settings.drain_seconds)
        for last in self.draining:
            last()
        await self.events.close(2.0)
        await self.broker.stop()
        await self._tasks.end()


def _digests(name: str, files: KeyFiles) -> tuple[str, ...]:
    files.refresh()
    return tuple(fingerprint(name, key) for key in files.keys)
