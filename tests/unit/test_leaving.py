"""An upstream is left to the end, whatever becomes of whoever leaves it."""

import asyncio
from typing import cast

import pytest

from toolbus_executor.upstreams.base import Upstream, leave


class Slow:
    """Closes when it is let."""

    def __init__(self) -> None:
        self.begun, self.let = asyncio.Event(), asyncio.Event()
        self.closed = False

    async def close(self) -> None:
        self.begun.set()
        await self.let.wait()
        self.closed = True


async def test_who_is_cancelled_again_and_again_closes_all_the_same() -> None:
    slow = Slow()
    leaving = asyncio.create_task(leave(cast("Upstream", slow)))
    await slow.begun.wait()
    for _ in range(3):
        leaving.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not leaving.done()
    slow.let.set()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert slow.closed


async def test_what_goes_wrong_in_leaving_is_told() -> None:
    class Broken(Slow):
        async def close(self) -> None:
            raise OSError

    with pytest.raises(OSError):  # noqa: PT011 - it is the one above
        await leave(cast("Upstream", Broken()))
