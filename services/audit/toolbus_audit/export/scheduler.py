"""Runs the declared exports: each on its schedule, window after window, one audit at a time."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import time

from toolbus_audit.clickhouse.errors import StoreDownError
from toolbus_audit.delivery.cursor import LEASE_SECONDS, Cursor, OvertakenError
from toolbus_audit.delivery.http_client import Poster
from toolbus_audit.delivery.reconciler import Tended
from toolbus_audit.export.reader import Reads
from toolbus_audit.export.targets import PlaceError, Target, target_for
from toolbus_audit.export.windows import Window, write
from toolbus_common.config import Export
from toolbus_common.errors import BusDownError, ToolbusError
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.observability.metrics import EXPORT_EVENTS, EXPORT_FAILURES, EXPORT_UNTIL
from toolbus_common.secrets import Secrets

log = logging.getLogger(__name__)

PREFIX = "export."
MOST_THREADS = 16  # an export uses one at a time
MOST_MESSAGES = 50_000  # of one window
FIRST_RETRY, SLOWEST_RETRY = 1.0, 60.0
_END = 2**62  # of a stream that is over: all of it is closed

# The stream, and its last message up to which everything is in the table.
Closed = Callable[[], Awaitable[tuple[str, int]]]


@dataclass(slots=True)
class State:
    """How an export is, for `toolbus status`."""

    written: int = 0
    why: str = ""
    done: float = 0.0

    def __str__(self) -> str:
        """In a few words."""
        return f"{self.written} written" + (f"; {self.why}" if self.why else "")


class Exporting:
    """One export, for as long as its cursor is ours."""

    def __init__(
        self,
        name: str,
        export: Export,
        cursor: Cursor,
        store: Reads,
        closed: Closed,
        target: Target,
        first_retry: float = FIRST_RETRY,
    ) -> None:
        self.state = State()
        self._name = name
        self._export = export
        self._cursor = cursor
        self._store = store
        self._closed = closed
        self._target = target
        self._first_retry = first_retry

    async def run(self) -> None:
        """Export, until another audit does or the bus is lost."""
        try:
            await self._cursor.while_held(self._keep_on)
        except OvertakenError:
            self.state.why = "another audit writes it"
        except BusDownError as error:
            self.state.why = error.reason

    async def _keep_on(self) -> None:
        await self.take_up()
        delay = self._first_retry
        while True:
            await asyncio.sleep(max(self._due() - time(), 0))
            try:
                await self.catch_up()
                delay = self._first_retry
            except (PlaceError, StoreDownError, ToolbusError) as error:
                if isinstance(error, BusDownError):
                    raise
                self._failed(str(error))
                await asyncio.sleep(delay)
                delay = min(delay * 2, SLOWEST_RETRY)

    def _due(self) -> float:
        """When the next window closes: the first whole span after the last one that was done."""
        if self._cursor.place.until:
            return 0.0  # one was begun
        every = self._export.seconds
        return (self._cursor.place.at // every + 1) * every

    async def take_up(self) -> None:
        """Where nothing was written yet: from the beginning of the stream, at the next due time."""
        if not self._cursor.place.stream:
            self._cursor.place.stream, _ = await self._closed()
            self._cursor.place.at = time()
            await self._cursor.keep()

    async def catch_up(self) -> None:
        """Write every window up to what is in the table by now."""
        begun, place = time(), self._cursor.place
        stream, closed = await self._closed()
        if place.stream != stream:
            await self._window(_END)  # what is left of a stream that is over
            place.stream, place.done = stream, 0
        while place.until or place.done < closed:
            await self._window(place.until or min(closed, place.done + MOST_MESSAGES))
        place.at = begun
        await self._cursor.keep()
        self.state.why, self.state.done = "", begun
        EXPORT_UNTIL.labels(self._name).set(begun)

    async def _window(self, until: int) -> None:
        """Say which window it is, write it, and say that it is done: a crash writes it again."""
        place = self._cursor.place
        place.until = until
        await self._cursor.keep()
        window = Window(place.stream, place.done, until)
        rows = await write(self._store, self._name, self._export, window, self._target)
        place.done, place.until = until, 0
        await self._cursor.keep()
        self.state.written += rows
        EXPORT_EVENTS.labels(self._name).inc(rows)

    def _failed(self, why: str) -> None:
        EXPORT_FAILURES.labels(self._name).inc()
        if why != self.state.why:
            self.state.why = why
            log.warning("export.failed", extra={"export": self._name, "reason": why})


class Exports:
    """The declared ones; `named` says whose place the operator named himself."""

    def __init__(
        self,
        declared: Callable[[], Mapping[str, Export]],
        poster: Poster,
        named: Callable[[Export], bool],
        secrets: Secrets,
        holder: str,
        lease: float = LEASE_SECONDS,
    ) -> None:
        self._declared = declared
        self._poster = poster
        self._named = named
        self._holder = holder
        self._secrets = secrets
        self._lease = lease
        self._states: dict[str, State] = {}

    def states(self) -> dict[str, str]:
        """How each is, for `toolbus status`."""
        return {name: str(self._states[name]) for name in self._declared() if name in self._states}

    @asynccontextmanager
    async def exporting(self, bucket: Bucket, store: Reads, closed: Closed) -> AsyncIterator[None]:
        """Export while this is entered."""
        threads = ThreadPoolExecutor(MOST_THREADS, "export")

        def work(name: str, export: Export) -> Awaitable[None]:
            cursor = Cursor(bucket, PREFIX + name, self._holder, self._lease)
            target = target_for(
                export, self._poster, self._secrets, lambda: self._named(export), threads
            )
            exporting = Exporting(name, export, cursor, store, closed, target)
            self._states[name] = exporting.state
            return exporting.run()

        try:
            async with Tended(self._declared, work).running():
                yield
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
