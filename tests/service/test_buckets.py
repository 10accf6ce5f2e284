"""Key-value buckets: the first values of a watcher, and the number of watchers."""

import asyncio
from contextlib import aclosing

from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import CONFIG

AT_ONCE, EACH = 2, 300  # the server limits a bucket to a thousand watchers


async def test_many_reads_of_present_keys_all_see_them(operator: Bus) -> None:
    bucket = await operator.bucket(CONFIG)
    await bucket.put("seen.one", b"1")

    async def read_keys() -> None:
        for _ in range(EACH):
            assert [each.key for each in await bucket.present("seen.*")] == ["seen.one"]
            assert await bucket.present("unseen.*") == []

    await asyncio.gather(*(read_keys() for _ in range(AT_ONCE)))


async def test_a_watcher_receives_changes_after_the_present_values(operator: Bus) -> None:
    bucket = await operator.bucket(CONFIG)
    await bucket.put("seen.one", b"1")
    async with aclosing(bucket.watch()) as changes:
        first = await anext(changes)
        assert first is not None
        assert first.value == b"1"
        assert await anext(changes) is None
        await bucket.delete("seen.one")
        gone = await anext(changes)
        assert gone is not None
        assert gone.value is None
