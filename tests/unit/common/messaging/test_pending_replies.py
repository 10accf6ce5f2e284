"""Pending replies: each call gets its own messages and exactly one final reply, in time."""

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
    pending, notifications = PendingReplies(), list[CallNotification]()
    reply = pending.open("a", notifications.append)
    pending.deliver("a", Progress(b"1"))
    pending.deliver("a", Progress(b"2"))
    pending.deliver("a", CallResult(b"{}"))
    assert await pending.wait(reply, time.time() + 5) == CallResult(b"{}")
    assert notifications == [Progress(b"1"), Progress(b"2")]


async def test_messages_after_the_final_reply_are_dropped() -> None:
    pending, notifications = PendingReplies(), list[CallNotification]()
    reply = pending.open("a", notifications.append)
    pending.deliver("a", CallResult(b"first"))
    pending.deliver("a", CallResult(b"second"))
    pending.deliver("a", CallError(UpstreamDeadError("late")))
    pending.deliver("a", Progress(b"late"))
    assert await pending.wait(reply, time.time() + 5) == CallResult(b"first")
    assert notifications == []


async def test_a_message_for_a_closed_or_unknown_call_is_dropped() -> None:
    pending = PendingReplies()
    pending.open("a")
    pending.close("a")
    pending.deliver("a", CallResult(b"{}"))
    pending.deliver("never", CallResult(b"{}"))
    assert len(pending) == 0


async def test_a_failure_arrives_as_the_error_it_was() -> None:
    pending = PendingReplies()
    reply = pending.open("a")
    pending.fail("a", UpstreamDeadError("gone", server="git"))
    with pytest.raises(UpstreamDeadError, match="gone") as caught:
        await pending.wait(reply, time.time() + 5)
    assert caught.value.data == {"server": "git"}


async def test_losing_the_bus_fails_all_waiting_calls_each_with_its_own_error() -> None:
    pending = PendingReplies()
    slots = [pending.open(name) for name in "abc"]
    pending.fail_all(BusDownError("lost"))
    errors = await asyncio.gather(
        *(pending.wait(reply, time.time() + 5) for reply in slots), return_exceptions=True
    )
    assert [type(error) for error in errors] == [BusDownError] * 3
    assert len({id(error) for error in errors}) == 3


async def test_a_call_without_a_reply_times_out_with_an_unknown_outcome() -> None:
    pending = PendingReplies()
    reply = pending.open("a")
    with pytest.raises(OutcomeUnknownError, match="timed out; it may have been executed"):
        await pending.wait(reply, time.time() - 60)


@pytest.mark.parametrize("message", [StreamPaused(0), StreamPaused(1500), Progress(b"{}")])
async def test_a_notification_is_passed_on_unchanged_and_ends_nothing(
    message: CallNotification,
) -> None:
    assert decode_reply(message.encode()) == message
    received: list[CallNotification] = []
    reply = PendingReply(asyncio.get_running_loop().create_future(), received.append)
    reply.deliver(message)
    assert (received, reply.final.done()) == ([message], False)


async def test_a_call_that_failed_leaves_nothing_for_the_collector() -> None:
    pending = PendingReplies()

    async def request() -> None:
        reply = pending.open("a")
        try:
            pending.fail("a", failed.pop())
            await pending.wait(reply, time.time() + 5)
        finally:
            pending.close("a")

    failed: list[ToolbusError] = [UpstreamDeadError("gone")]
    alive = weakref.ref(failed[0])
    gc.disable()
    try:
        with suppress(UpstreamDeadError):
            await request()
        await asyncio.sleep(0)
        assert alive() is None
    finally:
        gc.enable()
