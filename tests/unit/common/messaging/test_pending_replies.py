"""Pending replies: each call gets its own messages and exactly one final reply, in time."""

import asyncio
import gc
import weakref
from contextlib import suppress
from time import time

import pytest

from toolbus_common.contracts import (
    CallError,
    CallNotification,
    CallResult,
    DeadlineExtended,
    FinalReply,
    Progress,
    StreamPaused,
    decode_reply,
)
from toolbus_common.contracts.replies import final_reply
from toolbus_common.errors import (
    BusDownError,
    OutcomeUnknownError,
    ToolbusError,
    UpstreamDeadError,
)
from toolbus_common.messaging.pending_replies import (
    GRACE,
    HANDLER_GRACE,
    PendingReplies,
    PendingReply,
)


async def reply_of(pending: PendingReply) -> FinalReply:
    """Wait for the reply of another process."""
    await pending.wait()
    return final_reply(pending.take())


async def test_progress_comes_before_the_result() -> None:
    pending, notifications = PendingReplies(), list[CallNotification]()
    reply = pending.open("a", time() + 5, notifications.append)
    pending.deliver("a", Progress(b"1"))
    pending.deliver("a", Progress(b"2"))
    pending.deliver("a", CallResult(b"{}"))
    assert await reply_of(reply) == CallResult(b"{}")
    assert notifications == [Progress(b"1"), Progress(b"2")]


async def test_messages_after_the_final_reply_are_dropped() -> None:
    pending, notifications = PendingReplies(), list[CallNotification]()
    reply = pending.open("a", time() + 5, notifications.append)
    pending.deliver("a", CallResult(b"first"))
    pending.deliver("a", CallResult(b"second"))
    pending.deliver("a", CallError(UpstreamDeadError("late")))
    pending.deliver("a", Progress(b"late"))
    assert await reply_of(reply) == CallResult(b"first")
    assert notifications == []


async def test_a_message_for_a_closed_or_unknown_call_is_dropped() -> None:
    pending, notifications = PendingReplies(), list[CallNotification]()
    reply = pending.open("a", time() + 5, notifications.append)
    pending.close("a")
    pending.deliver("a", CallResult(b"{}"))
    pending.deliver("never", CallResult(b"{}"))
    await reply.send(Progress(b"late"))  # by a handler of this process that has returned
    assert (len(pending), notifications) == (0, [])


async def test_a_failure_arrives_as_the_error_it_was() -> None:
    pending = PendingReplies()
    reply = pending.open("a", time() + 5)
    pending.fail("a", UpstreamDeadError("gone", server="git"))
    with pytest.raises(UpstreamDeadError, match="gone") as caught:
        await reply_of(reply)
    assert caught.value.data == {"server": "git"}


async def test_losing_the_bus_fails_all_waiting_calls_each_with_its_own_error() -> None:
    pending = PendingReplies()
    waiting = [asyncio.ensure_future(reply_of(pending.open(name, time() + 5))) for name in "abc"]
    await asyncio.sleep(0)
    pending.fail_all(BusDownError("lost"))
    errors = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(error) for error in errors] == [BusDownError] * 3
    assert len({id(error) for error in errors}) == 3


async def test_losing_the_bus_does_not_end_a_call_that_a_handler_of_this_process_runs() -> None:
    pending = PendingReplies()
    reply = pending.open("a", time() + 5)
    pending.fail_all(BusDownError("lost"))
    pending.deliver("a", CallResult(b"{}"))
    assert await reply_of(reply) == CallResult(b"{}")


async def test_a_call_without_a_reply_times_out_with_an_unknown_outcome() -> None:
    pending, deadline = PendingReplies(), time() + 60
    waiting = asyncio.ensure_future(reply_of(pending.open("a", deadline)))
    await asyncio.sleep(0)
    pending.expire(deadline + GRACE - 0.1)
    assert not waiting.done()
    pending.expire(deadline + GRACE + 0.1)
    with pytest.raises(OutcomeUnknownError, match="timed out; it may have been executed"):
        await waiting


async def test_an_extended_call_times_out_after_its_later_deadline() -> None:
    pending, deadline, extensions = PendingReplies(), time() + 60, list[float]()
    reply = pending.open("a", deadline, on_extended=extensions.append)
    waiting = asyncio.ensure_future(reply_of(reply))
    await asyncio.sleep(0)
    pending.deliver("a", DeadlineExtended(deadline + 100))
    pending.deliver("a", DeadlineExtended(deadline + 50))
    pending.expire(deadline + 99)
    assert not waiting.done()
    pending.expire(deadline + 102)
    with pytest.raises(OutcomeUnknownError):
        await waiting
    assert extensions == [deadline + 100] * 2


async def test_a_handler_of_this_process_that_ignores_its_deadline_is_cancelled_again() -> None:
    pending, deadline = PendingReplies(), time() + 60
    reply = pending.open("a", deadline)
    reply.task = asyncio.ensure_future(asyncio.Event().wait())
    pending.expire(deadline + HANDLER_GRACE - 0.1)
    assert not reply.expired
    pending.expire(deadline + HANDLER_GRACE + 0.1)
    pending.expire(deadline + HANDLER_GRACE + 0.2)
    assert (reply.expired, reply.task.cancelling()) == (1, 1)
    pending.expire(deadline + 2 * HANDLER_GRACE + 0.2)  # the first cancellation had no effect
    task = reply.task
    assert (reply.expired, task.cancelling()) == (2, 2)
    pending.close("a")
    assert task.cancelling() == 0
    await asyncio.wait([task])


@pytest.mark.parametrize("message", [StreamPaused(0), StreamPaused(1500), Progress(b"{}")])
async def test_a_notification_is_passed_on_unchanged_and_ends_nothing(
    message: CallNotification,
) -> None:
    assert decode_reply(message.encode()) == message
    received: list[CallNotification] = []
    reply = PendingReply(time() + 5, received.append)
    reply.deliver(message)
    assert (received, reply.wait().done()) == ([message], False)


async def test_a_call_that_failed_leaves_nothing_for_the_collector() -> None:
    pending = PendingReplies()

    async def request() -> None:
        reply = pending.open("a", time() + 5)
        try:
            pending.fail("a", failed.pop())
            await reply_of(reply)
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
