"""The declared sinks: each is told by a task of its own, so that a slow one holds up no other."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

from toolbus_audit.delivery.cursor import LEASE_SECONDS, Cursor
from toolbus_audit.delivery.http_client import Poster
from toolbus_audit.delivery.reconciler import Tended
from toolbus_audit.siem.base import Outlet
from toolbus_audit.siem.forwarder import FIRST_RETRY, State, Stream, Telling, Way
from toolbus_audit.siem.http_sink import HttpOutlet
from toolbus_audit.siem.syslog_sink import SETTLE_SECONDS, DatagramOutlet, StreamOutlet
from toolbus_common.config import Sink
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.secrets import Secrets

MOST_THREADS = 64  # a sink uses one at a time; what seals and writes has others
PREFIX = "sink."


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: without a word of its holder, after a first failure, until syslog has taken it."""

    lease: float = LEASE_SECONDS
    first_retry: float = FIRST_RETRY
    settle: float = SETTLE_SECONDS


USUAL = Pace()


class Sinks:
    """`declared` gives them as they are now, `named` says which the operator named himself."""

    def __init__(
        self,
        declared: Callable[[], Mapping[str, Sink]],
        poster: Poster,
        named: Callable[[Sink], bool],
        secrets: Secrets,
        holder: str,
        pace: Pace = USUAL,
    ) -> None:
        self._declared = declared
        self._poster = poster
        self._named = named
        self._holder = holder
        self._secrets = secrets
        self._pace = pace
        self._threads = ThreadPoolExecutor(MOST_THREADS, "sink")
        self._states: dict[str, State] = {}

    def states(self) -> dict[str, str]:
        """How each is, for `toolbus status`."""
        return {name: str(self._states[name]) for name in self._declared() if name in self._states}

    @asynccontextmanager
    async def telling(self, bucket: Bucket, stream: Stream) -> AsyncIterator[None]:
        """Tell them while this is entered."""

        def work(name: str, sink: Sink) -> Awaitable[None]:
            cursor = Cursor(bucket, PREFIX + name, self._holder, self._pace.lease)
            outlet = self._outlet(sink)
            way = Way(outlet, self._threads, self._pace.first_retry)
            telling = Telling(name, sink, cursor, stream, way)
            # Its counts go on, as those of its metrics do, when it is begun anew.
            telling.state = self._states.setdefault(name, telling.state)
            return telling.run()

        try:
            async with Tended(self._declared, work, 5 * self._pace.first_retry).running():
                yield
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _outlet(self, sink: Sink) -> Outlet:
        host = socket.gethostname()

        def named() -> bool:
            return self._named(sink)

        if sink.transport == "http":
            return HttpOutlet(
                sink, self._poster, self._threads, self._secrets, named=named, host=host
            )
        given = sink, self._poster, self._threads
        if sink.transport == "udp":
            return DatagramOutlet(*given, named=named, host=host)
        return StreamOutlet(*given, named=named, host=host, settle=self._pace.settle)
