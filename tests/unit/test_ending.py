"""Tasks are ended even when they lose a cancellation, or fail in ending."""

import asyncio

from toolbus_common.ending import end


async def test_a_task_that_loses_a_cancellation_ends_all_the_same() -> None:
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


async def test_a_task_that_fails_in_ending_is_ended() -> None:
    async def failing() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError

    task = asyncio.create_task(failing())
    await asyncio.sleep(0)
    await end(task)
    assert isinstance(task.exception(), ValueError)


async def test_nothing_to_end_is_ended_at_once() -> None:
    await end()
