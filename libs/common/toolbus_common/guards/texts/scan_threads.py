"""Threads in which large contents are scanned, so that the event loop is not blocked."""

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from threading import Lock
from typing import Any, TypeVar

from msgspec import Struct

from toolbus_common.contracts.guards import CheckedCall

LARGE = 8 << 10  # bytes; larger contents are checked in a thread
THREADS = 8
MOST_OF_ONE = 2  # threads that the contents of one caller use at the same time
# Threads that are reserved for callers that use none, and those of them that are reserved for
# customers that use none.
FOR_OTHERS, FOR_CUSTOMERS = 4, 1
Caller = tuple[str, str]  # the customer and the key
T = TypeVar("T")


class _Scan(Struct, frozen=True):
    work: Callable[[], Any]
    result: Future[Any]


class ScanThreads:
    """A pool of threads. A scan counts against its caller until its thread has really ended.

    The time limit of a guard ends the wait for a scan, but not its thread. Scans begin in the order
    of their arrival, except those whose caller or customer has its share of the threads.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, "guards")
        self._lock = Lock()
        self._free = THREADS
        self._running: Counter[Caller] = Counter()
        self._customers: Counter[str] = Counter()
        self._arrivals = count()
        self._waiting: dict[Caller, dict[int, _Scan]] = {}

    async def run(self, caller: Caller, work: Callable[[], T]) -> T:
        """Return the result of `work`, as soon as its caller may use a thread."""
        result: Future[T] = Future()
        with self._lock:
            number = next(self._arrivals)
            self._waiting.setdefault(caller, {})[number] = _Scan(work, result)
            self._begin()
        try:
            return await asyncio.wrap_future(result)
        finally:
            with self._lock:  # a scan that did not begin before its time was up
                self._remove(caller, number)

    def _begin(self) -> None:
        """Begin the scans that may begin now."""
        while self._free:
            firsts = [
                (next(iter(scans)), caller)
                for caller, scans in self._waiting.items()
                if self._may_begin(caller)
            ]
            if not firsts:
                return
            number, caller = min(firsts)
            scan = self._remove(caller, number)
            if scan is not None and scan.result.set_running_or_notify_cancel():
                self._count(caller, 1)
                self._pool.submit(self._work, caller, scan)

    def _may_begin(self, caller: Caller) -> bool:
        """Return whether a caller may use one more thread."""
        running = self._running[caller]
        if running and (running >= MOST_OF_ONE or self._free <= FOR_OTHERS):
            return False
        return self._free > FOR_CUSTOMERS or not self._customers[caller[0]]

    def _work(self, caller: Caller, scan: _Scan) -> None:
        """Do the work of a scan in its thread."""
        value: Any = None
        error: BaseException | None = None
        try:
            value = scan.work()
        except BaseException as raised:  # noqa: BLE001 - it is raised where the scan is awaited
            error = raised
        try:
            with self._lock:
                self._count(caller, -1)
                self._begin()
        finally:
            if error is not None:
                scan.result.set_exception(error)
            else:
                scan.result.set_result(value)

    def _count(self, caller: Caller, change: int) -> None:
        self._free -= change
        for counter, name in ((self._running, caller), (self._customers, caller[0])):
            counter[name] += change  # type: ignore[index]
            if not counter[name]:  # type: ignore[index]
                del counter[name]

    def _remove(self, caller: Caller, number: int) -> _Scan | None:
        """Remove a scan from those that wait."""
        scans = self._waiting.get(caller, {})
        scan = scans.pop(number, None)
        if not scans:
            self._waiting.pop(caller, None)
        return scan


_threads = ScanThreads()


async def scanned(size: int, call: CheckedCall, work: Callable[[], T]) -> T:
    """Return the result of `work`, which runs in a thread of the caller if `size` is large."""
    if size < LARGE:
        return work()
    return await _threads.run((call.customer, call.key), work)
