"""Each waiting call gets its own frames, exactly one ending, and never a hang."""

import asyncio
import gc
import time
import weakref
from contextlib import suppress

import pytest

from toolbus_common.contracts import (
    CallError,
    CallNotification,
    CallResult,
    Progress,
    StreamPaused,
    decode_reply,
)
from toolbus_common.errors import (
    BusDownError,
    OutcomeUnknownError,
    ToolbusError,
    UpstreamDeadError,
)
from toolbus_common.messaging.pending_replies import PendingReplies, PendingReply


async def test_progress_comes_before_the_result() -> None:
    mux, told = PendingReplies(), list[CallNotification]()
    slot = mux.open("a", told.append)
    mux.deliver("a", Progress(b"1"))
    mux.deliver("a", Progress(b"2"))
    mux.deliver("a", CallResult(b"{}"))
    assert await mux.wait(slot, time.time() + 5) == CallResult(b"{}")
    assert told == [Progress(b"1"), Progress(b"2")]


async def test_frames_after_the_ending_are_dropped() -> None:
    mux, told = PendingReplies(), list[CallNotification]()
    slot = mux.open("a", told.append)
    mux.deliver("a", CallResult(b"first"))
    mux.deliver("a", CallResult(b"second"))
    mux.deliver("a", CallError(UpstreamDeadError("late")))
    mux.deliver("a", Progress(b"late"))
    assert await mux.wait(slot, time.time() + 5) == CallResult(b"first")
    assert told == []


async def test_a_frame_for_a_closed_or_unknown_call_is_dropped() -> None:
    mux = PendingReplies()
    mux.open("a")
    mux.close("a")
    mux.deliver("a", CallResult(b"{}"))
    mux.deliver("never", CallResult(b"{}"))
    assert len(mux) == 0


async def test_a_failure_arrives_as_the_error_it_was() -> None:
    mux = PendingReplies()
    slot = mux.open("a")
    mux.fail("a", UpstreamDeadError("gone", server="git"))
    with pytest.raises(UpstreamDeadError, match="gone") as caught:
        await mux.wait(slot, time.time() + 5)
    assert caught.value.data == {"server": "git"}


async def test_losing_the_bus_fails_all_waiting_calls_each_with_its_own_error() -> None:
    mux = PendingReplies()
    slots = [mux.open(name) for name in "abc"]
    mux.fail_all(BusDownError("lost"))
    errors = await asyncio.gather(
        *(mux.wait(slot, time.time() + 5) for slot in slots), return_exceptions=True
    )
    assert [type(error) for error in errors] == [BusDownError] * 3
    assert len({id(error) for error in errors}) == 3


async def test_a_call_nobody_answers_ends_after_its_deadline_saying_it_is_unknown() -> None:
    mux = PendingReplies()
    slot = mux.open("a")
    with pytest.raises(OutcomeUnknownError, match="may or may not have happened"):
        await mux.wait(slot, time.time() - 60)


@pytest.mark.parametrize("frame", [StreamPaused(0), StreamPaused(1500), Progress(b"{}")])
async def test_what_is_told_on_the_way_comes_back_as_it_was_sent_and_ends_nothing(
    frame: CallNotification,
) -> None:
    assert decode_reply(frame.encode()) == frame
    heard: list[CallNotification] = []
    slot = PendingReply(asyncio.get_running_loop().create_future(), heard.append)
    slot.deliver(frame)
    assert (heard, slot.ending.done()) == ([frame], False)


async def test_a_call_that_failed_leaves_nothing_for_the_collector() -> None:
    mux = PendingReplies()

    async def ask() -> None:
        slot = mux.open("a")
        try:
            mux.fail("a", failed.pop())
            await mux.wait(slot, time.time() + 5)
        finally:
            mux.close("a")

    failed: list[ToolbusError] = [UpstreamDeadError("gone")]
    alive = weakref.ref(failed[0])
    gc.disable()
    try:
        with suppress(UpstreamDeadError):
            await ask()
        await asyncio.sleep(0)
        assert alive() is None
    finally:
        gc.enable()
