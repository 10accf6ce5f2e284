"""Threads of large scans: one caller never uses all of them, also after its time is up."""

import asyncio
from threading import Event

import pytest

from harness.waits import until
from toolbus_common.guards.scan_threads import MOST_OF_ONE, THREADS, ScanThreads


async def test_the_scans_of_one_caller_leave_threads_for_others() -> None:
    threads, goes_on = ScanThreads(), Event()
    hostile = [
        asyncio.create_task(threads.run("hostile", goes_on.wait)) for _ in range(THREADS * 2)
    ]
    await asyncio.sleep(0)
    assert await threads.run("other", lambda: "scanned") == "scanned"
    goes_on.set()
    assert await asyncio.gather(*hostile) == [True] * len(hostile)


async def test_a_scan_counts_until_its_thread_ends() -> None:
    threads, goes_on = ScanThreads(), Event()
    for _ in range(MOST_OF_ONE):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await threads.run("hostile", goes_on.wait)
    later = asyncio.create_task(threads.run("hostile", lambda: "scanned"))
    assert await threads.run("other", lambda: "scanned") == "scanned"
    assert not later.done()
    goes_on.set()
    await until(later.done, "the later scan of the same caller")


async def test_an_error_of_a_scan_is_raised_and_frees_its_thread() -> None:
    threads = ScanThreads()

    def fail() -> None:
        raise ValueError("not JSON")

    for _ in range(THREADS):
        with pytest.raises(ValueError, match="not JSON"):
            await threads.run("caller", fail)
