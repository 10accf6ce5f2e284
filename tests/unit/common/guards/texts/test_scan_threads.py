"""Threads of large scans: one caller never uses all of them, also after its time is up."""

import asyncio
from collections.abc import Iterator
from functools import partial
from threading import Event

import pytest

from harness.waits import until
from toolbus_common.guards.texts.scan_threads import FOR_OTHERS, MOST_OF_ONE, THREADS, ScanThreads

HOSTILE, OTHER = ("acme", "hostile"), ("beta", "other")


@pytest.fixture
def goes_on() -> Iterator[Event]:
    event = Event()
    yield event
    event.set()


async def test_the_scans_of_one_caller_leave_threads_for_others(goes_on: Event) -> None:
    threads = ScanThreads()
    hostile = [asyncio.create_task(threads.run(HOSTILE, goes_on.wait)) for _ in range(THREADS * 2)]
    await asyncio.sleep(0)
    assert await threads.run(OTHER, lambda: "scanned") == "scanned"
    goes_on.set()
    assert await asyncio.gather(*hostile) == [True] * len(hostile)


async def test_a_few_callers_with_many_scans_leave_threads_for_others(goes_on: Event) -> None:
    threads = ScanThreads()
    hostile = [
        asyncio.create_task(threads.run(("acme", f"key {number % FOR_OTHERS}"), goes_on.wait))
        for number in range(THREADS * 2)
    ]
    await asyncio.sleep(0)
    assert await threads.run(("acme", "another key"), lambda: "scanned") == "scanned"
    goes_on.set()
    await asyncio.gather(*hostile)


async def test_many_keys_of_one_customer_leave_a_thread_for_another_customer(
    goes_on: Event,
) -> None:
    threads = ScanThreads()
    hostile = [
        asyncio.create_task(threads.run(("acme", f"key {number}"), goes_on.wait))
        for number in range(THREADS * 2)
    ]
    await asyncio.sleep(0)
    assert await threads.run(OTHER, lambda: "scanned") == "scanned"
    goes_on.set()
    await asyncio.gather(*hostile)


async def test_scans_begin_in_the_order_of_their_arrival(goes_on: Event) -> None:
    threads, started, first = ScanThreads(), list[int](), Event()
    ends = [first, *[goes_on] * (THREADS - 1)]
    blocking = [
        asyncio.create_task(threads.run((f"c{number}", "key"), end.wait))
        for number, end in enumerate(ends)
    ]
    await asyncio.sleep(0)
    waiting = [
        asyncio.create_task(threads.run((name, "key"), partial(started.append, number)))
        for number, name in enumerate("xyxyz")
    ]
    await asyncio.sleep(0)
    assert started == []
    first.set()  # one thread does all that waits
    await asyncio.gather(*waiting)
    assert started == [0, 1, 2, 3, 4]
    goes_on.set()
    await asyncio.gather(*blocking)


async def test_a_scan_counts_until_its_thread_ends(goes_on: Event) -> None:
    threads = ScanThreads()
    for _ in range(MOST_OF_ONE):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await threads.run(HOSTILE, goes_on.wait)
    later = asyncio.create_task(threads.run(HOSTILE, lambda: "scanned"))
    assert await threads.run(OTHER, lambda: "scanned") == "scanned"
    assert not later.done()
    goes_on.set()
    await until(later.done, "the later scan of the same caller")


async def test_a_scan_whose_time_was_up_before_it_began_is_not_done(goes_on: Event) -> None:
    threads, done = ScanThreads(), list[str]()
    running = [asyncio.create_task(threads.run(HOSTILE, goes_on.wait)) for _ in range(MOST_OF_ONE)]
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await threads.run(HOSTILE, lambda: done.append("too late"))
    goes_on.set()
    await asyncio.gather(*running)
    assert await threads.run(HOSTILE, lambda: "scanned") == "scanned"
    assert done == []


async def test_an_error_of_a_scan_is_raised_and_frees_its_thread() -> None:
    threads = ScanThreads()

    def fail() -> None:
        raise ValueError("not JSON")

    for _ in range(THREADS):
        with pytest.raises(ValueError, match="not JSON"):
            await threads.run(HOSTILE, fail)
