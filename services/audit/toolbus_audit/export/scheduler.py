"""Run the configured exports on their schedules, window by window, on one replica at a time."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import time

from tenacity import RetryCallState, retry_if_exception

from toolbus_audit.clickhouse.errors import StoreDownError
from toolbus_audit.delivery.cursor import LEASE_SECONDS, Cursor, OvertakenError
from toolbus_audit.delivery.task_reconciler import TaskReconciler
from toolbus_audit.export.reader import RowReader
from toolbus_audit.export.targets import Target, target_for
from toolbus_audit.export.windows import Window, write_window
from toolbus_common.config import Export
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.errors import BusDownError, ToolbusError
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.object_storage.errors import TargetError
from toolbus_common.observability.metrics import EXPORT_EVENTS, EXPORT_FAILURES, EXPORT_UNTIL
from toolbus_common.retries import Backoff, reason_of, retrying
from toolbus_common.secrets import Secrets

log = logging.getLogger(__name__)

PREFIX = "export."
MAX_THREADS = 16  # an export uses one thread; the time limit of a file excludes waiting
MAX_MESSAGES = 50_000  # in one window
FIRST_RETRY, SLOWEST_RETRY = 1.0, 60.0
_END = 2**62  # end of a stream that was replaced: all of it is closed

# Returns the stream, and the sequence up to which all its events are in the table.
ClosedUntil = Callable[[], Awaitable[tuple[str, int]]]


@dataclass(slots=True)
class State:
    """Status of an export, for `toolbus status`."""

    written: int = 0
    problem: str = ""
    done: float = 0.0

    def __str__(self) -> str:
        """Return a summary."""
        return f"{self.written} written" + (f"; {self.problem}" if self.problem else "")


class ExportTask:
    """Task of one export while this replica has its lease."""

    def __init__(
        self,
        name: str,
        export: Export,
        cursor: Cursor,
        store: RowReader,
        closed: ClosedUntil,
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
        """Export until another replica takes over or the connection to the bus is lost."""
        try:
            await self._cursor.run_while_held(self._run_schedule)
        except OvertakenError:
            self.state.problem = "another audit replica writes it"
        except BusDownError as error:
            self.state.problem = error.reason

    async def _run_schedule(self) -> None:
        await self.start()
        backoff = Backoff(self._first_retry, SLOWEST_RETRY)
        condition = retry_if_exception(_is_retried)
        while True:
            await asyncio.sleep(max(self._due() - time(), 0))
            await retrying(backoff, condition, failed=self._record_failure)(self.export_closed)

    def _due(self) -> float:
        """Return when the next window closes: the next multiple of the interval (Unix seconds)."""
        if self._cursor.state.until:
            return 0.0  # a window was started and not finished
        every = self._export.seconds
        return (self._cursor.state.at // every + 1) * every

    async def start(self) -> None:
        """Initialize a new export, which begins with the stream's first message.

        The first window is written at the next scheduled time.
        """
        if not self._cursor.state.stream:
            self._cursor.state.stream, _ = await self._closed()
            self._cursor.state.at = time()
            await self._cursor.save()

    async def export_closed(self) -> None:
        """Write every window up to the last closed message."""
        started, state = time(), self._cursor.state
        stream, closed = await self._closed()
        if state.stream != stream:
            await self._export_window(_END)  # the rest of the replaced stream
            state.stream, state.done = stream, 0
        while state.until or state.done < closed:
            await self._export_window(state.until or min(closed, state.done + MAX_MESSAGES))
        state.at = started
        await self._cursor.save()
        self.state.problem, self.state.done = "", started
        EXPORT_UNTIL.labels(self._name).set(started)

    async def _export_window(self, until: int) -> None:
        """Write one window. Its end is stored first, so that a crash repeats the same window."""
        state = self._cursor.state
        state.until = until
        await self._cursor.save()
        window = Window(state.stream, state.done, until)
        rows = await write_window(self._store, self._name, self._export, window, self._target)
        state.done, state.until = until, 0
        await self._cursor.save()
        self.state.written += rows
        EXPORT_EVENTS.labels(self._name).inc(rows)

    def _record_failure(self, state: RetryCallState) -> None:
        problem = reason_of(state)
        EXPORT_FAILURES.labels(self._name).inc()
        if problem != self.state.problem:
            self.state.problem = problem
            log.warning("export.failed", extra={"export": self._name, "reason": problem})


def _is_retried(error: BaseException) -> bool:
    retried = isinstance(error, TargetError | StoreDownError | ToolbusError)
    return retried and not isinstance(error, BusDownError)


class ExportScheduler:
    """Scheduler of configured exports.

    `is_operator_named` returns whether the operator (not an API caller) configured a location.
    """

    def __init__(
        self,
        configured: Callable[[], Mapping[str, Export]],
        http: HttpClient,
        is_operator_named: Callable[[Export], bool],
        secrets: Secrets,
        holder: str,
        lease: float = LEASE_SECONDS,
    ) -> None:
        self._configured = configured
        self._http = http
        self._is_operator_named = is_operator_named
        self._holder = holder
        self._secrets = secrets
        self._lease = lease
        self._states: dict[str, State] = {}

    def states(self) -> dict[str, str]:
        """Return the status of each export, for `toolbus status`."""
        return {
            name: str(self._states[name]) for name in self._configured() if name in self._states
        }

    @asynccontextmanager
    async def running(
        self, bucket: Bucket, store: RowReader, closed: ClosedUntil
    ) -> AsyncIterator[None]:
        """Run the exports while the context is entered."""
        threads = ThreadPoolExecutor(MAX_THREADS, "export")

        def work(name: str, export: Export) -> Awaitable[None]:
            cursor = Cursor(bucket, PREFIX + name, self._holder, self._lease)
            target = target_for(
                export, self._http, self._secrets, lambda: self._is_operator_named(export), threads
            )
            task = ExportTask(name, export, cursor, store, closed, target)
            self._states[name] = task.state
            return task.run()

        try:
            async with TaskReconciler(self._configured, work).running():
                yield
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
