"""Registry of configured sinks, with one task each, so that a slow sink does not delay another."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

from toolbus_audit.delivery.cursor import LEASE_SECONDS, Cursor
from toolbus_audit.delivery.task_reconciler import TaskReconciler
from toolbus_audit.siem.base import Transport
from toolbus_audit.siem.forwarder import FIRST_RETRY, Delivery, EventStream, Forwarder, State
from toolbus_audit.siem.http_sink import HttpTransport
from toolbus_audit.siem.syslog_sink import SETTLE_SECONDS, DatagramTransport, StreamTransport
from toolbus_common.config import Sink
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.secrets import Secrets

MAX_THREADS = 64  # a sink uses one thread at a time
PREFIX = "sink."


@dataclass(frozen=True, slots=True)
class Timing:
    """Durations in seconds: lease, delay after the first failure, settling time of syslog."""

    lease: float = LEASE_SECONDS
    first_retry: float = FIRST_RETRY
    settle: float = SETTLE_SECONDS


DEFAULT_TIMING = Timing()


class SinkRegistry:
    """Registry of the sinks that `configured` returns.

    `is_operator_named` returns whether the operator (not an API caller) configured a sink.
    """

    def __init__(
        self,
        configured: Callable[[], Mapping[str, Sink]],
        http: HttpClient,
        is_operator_named: Callable[[Sink], bool],
        secrets: Secrets,
        holder: str,
        timing: Timing = DEFAULT_TIMING,
    ) -> None:
        self._configured = configured
        self._http = http
        self._is_operator_named = is_operator_named
        self._holder = holder
        self._secrets = secrets
        self._timing = timing
        self._threads = ThreadPoolExecutor(MAX_THREADS, "sink")
        self._states: dict[str, State] = {}

    def states(self) -> dict[str, str]:
        """Return the status of each sink, for `toolbus status`."""
        return {
            name: str(self._states[name]) for name in self._configured() if name in self._states
        }

    @asynccontextmanager
    async def forwarding(self, bucket: Bucket, stream: EventStream) -> AsyncIterator[None]:
        """Forward to the sinks while the context is entered."""

        def work(name: str, sink: Sink) -> Awaitable[None]:
            cursor = Cursor(bucket, PREFIX + name, self._holder, self._timing.lease)
            transport = self._transport(sink)
            delivery = Delivery(transport, self._threads, self._timing.first_retry)
            forwarder = Forwarder(name, sink, cursor, stream, delivery)
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

    def _transport(self, sink: Sink) -> Transport:
        host = socket.gethostname()

        def is_operator_named() -> bool:
            return self._is_operator_named(sink)

        if sink.transport == "http":
            return HttpTransport(
                sink,
                self._http,
                self._threads,
                self._secrets,
                is_operator_named=is_operator_named,
                host=host,
            )
        if sink.transport == "udp":
            return DatagramTransport(
                sink, self._http, self._threads, is_operator_named=is_operator_named, host=host
            )
        return StreamTransport(
            sink,
            self._http,
            is_operator_named=is_operator_named,
            host=host,
            settle=self._timing.settle,
        )
