"""Many small requests of one moment share a round trip, and each gets its own result."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from harness.waits import until
from toolbus_common.messaging.batcher import Batch, Batcher
from toolbus_common.observability.tracing import bind, bound

Numbers = Batch[int, int]


class Recorder:
    """A flush function that doubles numbers, keeps its batches, and can be paused."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.at_once = 0
        self.max_concurrent = 0
        self.began = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    def __call__(self, batch: Numbers) -> None:
        batch.run(self.double(batch.items))

    async def double(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        self.began.set()
        self.at_once += 1
        self.max_concurrent = max(self.max_concurrent, self.at_once)
        await self.gate.wait()
        self.at_once -= 1
        return [item * 2 for item in items]


async def test_items_of_one_turn_share_one_batch() -> None:
    recorder = Recorder()
    batcher: Batcher[int, int] = Batcher(recorder)
    results = await asyncio.gather(*(batcher.add(item) for item in range(5)))
    assert results == [0, 2, 4, 6, 8]
    assert recorder.batches == [[0, 1, 2, 3, 4]]


async def test_a_single_item_is_not_delayed() -> None:
    batcher: Batcher[int, int] = Batcher(Recorder())
    assert await batcher.add(21) == 42


async def test_items_gather_while_all_slots_are_busy() -> None:
    recorder = Recorder()
    recorder.gate.clear()
    batcher: Batcher[int, int] = Batcher(recorder, concurrency=1)
    first = batcher.add(1)
    await recorder.began.wait()
    others = [batcher.add(item) for item in (2, 3, 4)]
    recorder.gate.set()
    assert await asyncio.gather(first, *others) == [2, 4, 6, 8]
    assert recorder.batches == [[1], [2, 3, 4]]


async def test_a_failed_batch_fails_each_of_its_items_and_no_other() -> None:
    async def unlucky(items: list[int]) -> list[int]:
        if 13 in items:
            raise RuntimeError("unlucky")
        return items

    def flush(batch: Numbers) -> None:
        if 14 in batch.items:
            raise RuntimeError("unlucky")
        batch.run(unlucky(batch.items))

    batcher: Batcher[int, int] = Batcher(flush)
    for cause in (13, 14):
        together = await asyncio.gather(batcher.add(1), batcher.add(cause), return_exceptions=True)
        assert [str(error) for error in together] == ["unlucky", "unlucky"]
        assert await batcher.add(2) == 2


async def test_a_cancelled_caller_does_not_affect_the_others() -> None:
    batcher: Batcher[int, int] = Batcher(Recorder())
    gone, stays = batcher.add(1), batcher.add(2)
    gone.cancel()
    assert await stays == 4
    assert gone.cancelled()


async def test_draining_waits_for_waiting_items_and_batches_in_flight() -> None:
    batcher: Batcher[int, int] = Batcher(Recorder(), max_items=2, concurrency=1)
    futures = [batcher.add(item) for item in range(7)]
    await batcher.drain()
    assert all(future.done() for future in futures)


@given(
    items=st.lists(st.integers(), max_size=60),
    max_items=st.integers(1, 9),
    concurrency=st.integers(1, 4),
)
def test_every_item_gets_its_own_result_in_bounded_batches(
    items: list[int], max_items: int, concurrency: int
) -> None:
    async def check() -> None:
        recorder = Recorder()
        batcher: Batcher[int, int] = Batcher(recorder, max_items=max_items, concurrency=concurrency)
        results = await asyncio.gather(*map(batcher.add, items))
        assert results == [item * 2 for item in items]
        assert [item for batch in recorder.batches for item in batch] == items
        assert all(len(batch) <= max_items for batch in recorder.batches)
        assert recorder.max_concurrent <= concurrency

    asyncio.run(check())


async def test_too_few_results_fail_each_item_rather_than_hang() -> None:
    batcher: Batcher[int, int] = Batcher(lambda batch: batch.resolve(batch.items[:-1]))
    errors = await asyncio.gather(batcher.add(1), batcher.add(2), return_exceptions=True)
    assert [type(error) for error in errors] == [ValueError, ValueError]


async def test_a_batch_does_not_run_in_the_context_of_its_first_item() -> None:
    seen: list[str] = []

    def flush(batch: Numbers) -> None:
        seen.append(bound())
        asyncio.get_running_loop().call_soon(batch.resolve, batch.items)

    for linger in (0.0, 0.001):
        batcher: Batcher[int, int] = Batcher(flush, linger=linger, max_items=1, concurrency=1)
        bind("00-trace")
        await asyncio.gather(batcher.add(1), batcher.add(2))
    assert seen == ["", "", "", ""]


async def test_a_batch_that_a_callback_ends_needs_no_task() -> None:
    replies: list[Numbers] = []
    batcher: Batcher[int, int] = Batcher(replies.append)
    before = asyncio.all_tasks()
    future = batcher.add(21)
    await until(lambda: replies, "the batch is flushed")
    assert asyncio.all_tasks() == before
    replies.pop().resolve([42])
    assert future.result() == 42


async def test_many_batches_that_end_at_once_do_not_recurse() -> None:
    batcher: Batcher[int, int] = Batcher(
        lambda batch: batch.resolve(batch.items), max_items=1, concurrency=1
    )
    assert await asyncio.gather(*map(batcher.add, range(5000))) == list(range(5000))


async def test_items_of_a_batch_whose_task_is_cancelled_are_cancelled() -> None:
    recorder = Recorder()
    recorder.gate.clear()
    batcher: Batcher[int, int] = Batcher(recorder)
    before = asyncio.all_tasks()
    waiting = batcher.add(1)
    await recorder.began.wait()
    (flushing,) = asyncio.all_tasks() - before
    flushing.cancel()
    await asyncio.wait([waiting])
    assert isinstance(waiting.exception(), asyncio.CancelledError)
    await batcher.drain()
