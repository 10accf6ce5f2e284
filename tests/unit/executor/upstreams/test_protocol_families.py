"""A server that is connected in both families leaves no connection open."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from toolbus_common.errors import UpstreamDeadError, UpstreamTimeoutError
from toolbus_executor.upstreams.base import Described
from toolbus_executor.upstreams.protocol_families import BothFamilies

LEGACY_CALL = cast("Any", SimpleNamespace(caller_is_legacy=True))


class FakeUpstream:
    """An upstream of one family, which opens when allowed."""

    left_out: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, family: str) -> None:
        self.family = family
        self.may_open, self.opening = asyncio.Event(), asyncio.Event()
        self.closed = False

    async def open(self) -> Described:
        """Open it."""
        self.opening.set()
        await self.may_open.wait()
        return Described(self.family, "2025-06-18")

    async def close(self) -> None:
        """Close it."""
        self.closed = True


async def opened() -> tuple[FakeUpstream, FakeUpstream, BothFamilies]:
    """Return a server's upstreams of both families, of which the first is open."""
    first, other = FakeUpstream("modern"), FakeUpstream("legacy")
    callbacks = cast("Any", SimpleNamespace(on_lists_changed=lambda: None))
    both = BothFamilies(cast("Any", first), lambda: cast("Any", other), callbacks, is_process=True)
    first.may_open.set()
    await both.open()
    return first, other, both


async def test_a_call_that_times_out_before_its_family_is_connected_was_not_executed() -> None:
    _, other, both = await opened()
    with pytest.raises(UpstreamTimeoutError, match="the call was not executed") as raised:
        await both.call(LEGACY_CALL, 0.05, cast("Any", None))
    assert raised.value.data["sent"] is False
    assert (other.opening.is_set(), other.closed) == (True, True)


async def test_a_family_that_connects_while_the_server_is_closed_is_closed_too() -> None:
    first, other, both = await opened()
    calling = asyncio.create_task(both.call(LEGACY_CALL, 5, cast("Any", None)))
    await other.opening.wait()
    await both.close()
    other.may_open.set()
    with pytest.raises(UpstreamDeadError, match="disconnected"):
        await calling
    assert first.closed
    assert other.closed
