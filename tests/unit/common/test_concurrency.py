"""Tasks are ended even when they lose a cancellation, or fail in ending."""

import asyncio

import pytest
from nats.aio.client import Client

from toolbus_common.concurrency import completely, end, first_of, in_time
from toolbus_common.errors import BusDownError
from toolbus_common.nats.connection import Bus


async def test_a_task_that_ignores_a_cancellation_is_ended() -> None:
    lost: list[int] = []

    async def deaf() -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if lost:
                    raise
                lost.append(1)

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    await end(task)
    assert task.cancelled()
    assert lost == [1]


async def test_a_task_that_fails_during_cancellation_is_ended() -> None:
    async def failing() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError

    task = asyncio.create_task(failing())
    await asyncio.sleep(0)
    await end(task)
    assert isinstance(task.exception(), ValueError)


async def test_cleanup_ends_although_its_task_is_cancelled_repeatedly() -> None:
    proceed, cleaned = asyncio.Event(), asyncio.Event()

    async def clean() -> None:
        await proceed.wait()
        cleaned.set()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await completely(clean())

    task = asyncio.create_task(work())
    for _ in range(3):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    proceed.set()
    await end(task)
    assert cleaned.is_set()
    assert task.cancelled()


async def test_cleanup_raises_its_own_error() -> None:
    async def failing() -> None:
        raise BusDownError("stopped")

    with pytest.raises(BusDownError):
        await completely(failing())


async def test_ending_no_task_returns_at_once() -> None:
    await end()


async def test_overdue_work_that_ignores_cancellation_is_ended_and_reported() -> None:
    ended = asyncio.Event()
    with pytest.raises(TimeoutError):
        await in_time(losing_a_cancellation(ended), 0.01)
    assert ended.is_set()


async def test_work_in_time_returns_or_raises_its_result() -> None:
    async def failing() -> None:
        raise ValueError

    assert await in_time(asyncio.sleep(0, "done"), 60) == "done"
    with pytest.raises(ValueError):  # noqa: PT011 - it is the one above
        await in_time(failing(), 60)


async def test_connecting_ends_in_time_although_the_client_ignores_cancellation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def never(_client: Client) -> None:
        await losing_a_cancellation(asyncio.Event())

    monkeypatch.setattr(Client, "_select_next_server", never)
    async with asyncio.timeout(60):
        with pytest.raises(BusDownError, match="Cannot connect to NATS"):
            await Bus("operator", "nats://127.0.0.1:9").open(0.01)


async def losing_a_cancellation(ended: asyncio.Event) -> None:
    """Retry forever and ignore the first cancellation, as the bus client does."""
    try:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(3600)
    finally:
        ended.set()


async def test_of_several_that_end_at_once_the_first_argument_counts() -> None:
    for _ in range(20):  # a set of tasks has no order
        assert await first_of(asyncio.sleep(0, "first"), asyncio.sleep(0, "second")) == "first"
