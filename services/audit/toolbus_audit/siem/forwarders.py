"""One forwarder for each receiver of events, with a task of its own: a slow one delays no other."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from toolbus_audit.delivery.cursor import LEASE_SECONDS, Cursor
from toolbus_audit.delivery.task_reconciler import TaskReconciler
from toolbus_audit.siem.base import Transport
from toolbus_audit.siem.forwarder import FIRST_RETRY, Delivery, EventStream, Forwarder, State
from toolbus_audit.siem.records import Selection
from toolbus_audit.siem.syslog_sink import SETTLE_SECONDS
from toolbus_common.nats.kv_bucket import Bucket

Declared = TypeVar("Declared")


@dataclass(frozen=True, slots=True)
class Timing:
    """Durations in seconds: lease, delay after the first failure, settling time of syslog."""

    lease: float = LEASE_SECONDS
    first_retry: float = FIRST_RETRY
    settle: float = SETTLE_SECONDS


DEFAULT_TIMING = Timing()


@dataclass(frozen=True, slots=True)
class Receiver:
    """A receiver of events, with the name that its log and metrics show."""

    name: str
    selection: Selection
    transport: Transport


class Forwarders(Generic[Declared]):
    """The forwarders of all receivers that `configured` returns.

    The position of a receiver is stored under `prefix` and its name.
    """

    def __init__(
        self,
        configured: Callable[[], Mapping[str, Declared]],
        prefix: str,
        holder: str,
        timing: Timing,
        threads: ThreadPoolExecutor,
    ) -> None:
        self._configured = configured
        self._prefix = prefix
        self._holder = holder
        self._timing = timing
        self._threads = threads
        self._states: dict[str, State] = {}

    def states(self) -> dict[str, State]:
        """Return the state of each configured receiver that has a forwarder."""
        return {name: self._states[name] for name in self._configured() if name in self._states}

    @asynccontextmanager
    async def running(
        self,
        bucket: Bucket,
        stream: EventStream,
        receiver: Callable[[str, Declared], Receiver],
    ) -> AsyncIterator[None]:
        """Forward while the context is entered; its end shuts the threads down."""

        def work(name: str, declared: Declared) -> Awaitable[None]:
            cursor = Cursor(bucket, self._prefix + name, self._holder, self._timing.lease)
            to = receiver(name, declared)
            delivery = Delivery(to.transport, self._threads, self._timing.first_retry)
            forwarder = Forwarder(to.name, to.selection, cursor, stream, delivery)
            # The counts continue after a restart of the task, like the metrics.
            forwarder.state = self._states.setdefault(name, forwarder.state)
            return forwarder.run()

        try:
            async with TaskReconciler(
                self._configured, work, 5 * self._timing.first_retry
            ).running():
                yield
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)
