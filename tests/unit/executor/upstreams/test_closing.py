"""An upstream is closed completely, even if the closing task is cancelled."""

import asyncio
from typing import cast

import pytest

from toolbus_executor.upstreams.base import Upstream, close_completely


class PausedUpstream:
    """An upstream that closes when released."""

    def __init__(self) -> None:
        self.started, self.released = asyncio.Event(), asyncio.Event()
        self.closed = False

    async def close(self) -> None:
        self.started.set()
        await self.released.wait()
        self.closed = True


async def test_repeated_cancellation_does_not_interrupt_closing() -> None:
    slow = PausedUpstream()
    leaving = asyncio.create_task(close_completely(cast("Upstream", slow)))
    await slow.started.wait()
    for _ in range(3):
        leaving.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not leaving.done()
    slow.released.set()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert slow.closed


async def test_an_error_in_closing_is_raised() -> None:
    class Broken(PausedUpstream):
        async def close(self) -> None:
            raise OSError

    with pytest.raises(OSError):  # noqa: PT011 - it is the one above
        await close_completely(cast("Upstream", Broken()))
