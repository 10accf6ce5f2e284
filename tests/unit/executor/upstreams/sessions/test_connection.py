"""A session's connection is closed completely, whatever interrupts the task that closes it."""

import asyncio
from typing import Any, cast

from toolbus_common.concurrency import end
from toolbus_common.contracts import CallAdmitted
from toolbus_executor.upstreams.base import Described, UpstreamCallbacks
from toolbus_executor.upstreams.sessions.client_requests import ClientQuestions
from toolbus_executor.upstreams.sessions.connection import Connection


class SlowUpstream:
    """An upstream whose loss is watched by a task that takes time to end."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.closed = False

    async def open(self) -> Described:
        """Open it."""
        return Described("legacy", "2025-06-18")

    async def wait_lost(self) -> str:
        """Wait for ever, and end slowly when cancelled."""
        try:
            await asyncio.sleep(60)
        finally:
            await self.may_end.wait()
        return ""

    async def close(self) -> None:
        """Close it."""
        self.closed = True


async def relist(_call: CallAdmitted) -> None:
    """List nothing."""


async def test_a_session_is_closed_although_its_closing_is_cancelled() -> None:
    upstream = SlowUpstream()
    connection = Connection(
        UpstreamCallbacks(lambda: None, lambda _method, _params: None, relist),
        lambda _callbacks: cast("Any", upstream),
        lambda _connection, _reason: None,
        ClientQuestions(),
    )
    await connection.open()
    await asyncio.sleep(0)
    closing = asyncio.create_task(connection.close())
    for _ in range(3):
        await asyncio.sleep(0)
        closing.cancel()
    upstream.may_end.set()
    await end(closing)
    assert upstream.closed
