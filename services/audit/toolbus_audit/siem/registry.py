"""Registry of configured sinks, with the transport of each."""

import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager

from toolbus_audit.siem.base import Transport
from toolbus_audit.siem.forwarder import EventStream
from toolbus_audit.siem.forwarders import DEFAULT_TIMING, Forwarders, Receiver, Timing
from toolbus_audit.siem.http_sink import HttpTransport
from toolbus_audit.siem.syslog_sink import DatagramTransport, StreamTransport
from toolbus_common.config import Sink
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.secrets import Secrets

MAX_THREADS = 64  # a sink uses one thread at a time
PREFIX = "sink."


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
        self._http = http
        self._is_operator_named = is_operator_named
        self._secrets = secrets
        self._timing = timing
        self._threads = ThreadPoolExecutor(MAX_THREADS, "sink")
        self._forwarders = Forwarders(configured, PREFIX, holder, timing, self._threads)

    def states(self) -> dict[str, str]:
        """Return the status of each sink, for `toolbus status`."""
        return {name: str(state) for name, state in self._forwarders.states().items()}

    def forwarding(self, bucket: Bucket, stream: EventStream) -> AbstractAsyncContextManager[None]:
        """Forward to the sinks while the context is entered."""

        def receiver(name: str, sink: Sink) -> Receiver:
            return Receiver(name, sink, self._transport(sink))

        return self._forwarders.running(bucket, stream, receiver)

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
