"""Wait for the replies to calls: notifications, then exactly one final reply per call."""

import asyncio
from collections.abc import Callable
from time import time

from toolbus_common.contracts.replies import (
    CallError,
    CallNotification,
    DeadlineExtended,
    FinalReply,
    ReplyMessage,
)
from toolbus_common.errors import OutcomeUnknownError, ToolbusError

GRACE = 1.0  # seconds past the deadline in which the serving side may still report a timeout


class PendingReply:
    """The replies to one call. `final` resolves to the final reply."""

    __slots__ = ("_extended_deadline", "_on_extended", "_on_notification", "final", "timer")

    def __init__(
        self,
        final: asyncio.Future[FinalReply],
        on_notification: Callable[[CallNotification], None] | None = None,
        on_extended: Callable[[float], None] | None = None,
    ) -> None:
        self.final = final
        self._on_notification = on_notification
        self._on_extended = on_extended
        self._extended_deadline = 0.0  # 0 until the call is extended

    def arm(self, deadline: float) -> None:
        """Set the timeout to this deadline. An extended deadline extends the timeout."""
        seconds = max(0.0, deadline - time()) + GRACE
        self.timer = self.final.get_loop().call_later(seconds, self._expire)

    def deliver(self, message: ReplyMessage) -> None:
        """Accept a message; messages after the final reply are dropped."""
        if self.final.done():
            return
        if isinstance(message, CallError):
            self.final.set_exception(message.error)
        elif isinstance(message, DeadlineExtended):
            self._extend(message.deadline)
        elif not isinstance(message, CallNotification):
            self.final.set_result(message)
        elif self._on_notification is not None:
            self._on_notification(message)

    def _extend(self, deadline: float) -> None:
        self._extended_deadline = max(
            self._extended_deadline, deadline
        )  # the timer is set again only when it fires
        if self._on_extended is not None:
            self._on_extended(self._extended_deadline)

    def _expire(self) -> None:
        if self._extended_deadline > time():
            self.arm(self._extended_deadline)
        else:
            self.deliver(CallError(_timed_out()))


class PendingReplies:
    """The pending replies of this process by call id. The ids are generated here and unique."""

    def __init__(self) -> None:
        self._by_call_id: dict[str, PendingReply] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        return len(self._by_call_id)

    def open(
        self,
        call_id: str,
        on_notification: Callable[[CallNotification], None] | None = None,
        on_extended: Callable[[float], None] | None = None,
    ) -> PendingReply:
        """Register a call that is about to be sent."""
        if self._loop is None:  # cached: on 3.11 each look-up is a system call
            self._loop = asyncio.get_running_loop()
        pending = self._by_call_id[call_id] = PendingReply(
            self._loop.create_future(), on_notification, on_extended
        )
        return pending

    def close(self, call_id: str) -> None:
        """Remove a call. Messages that arrive later for this call are dropped."""
        pending = self._by_call_id.pop(call_id, None)
        if pending is not None:
            # The error's traceback refers to the pending reply, which refers to the error. Without
            # this, the garbage collector would have to find the cycle, and its pauses delay every
            # call.
            del pending.final

    def deliver(self, call_id: str, message: ReplyMessage) -> None:
        """Pass a message to the caller that waits for it."""
        pending = self._by_call_id.get(call_id)
        if pending is not None:
            pending.deliver(message)

    def fail(self, call_id: str, error: ToolbusError) -> None:
        """End one call with an error."""
        self.deliver(call_id, CallError(error))

    def fail_all(self, error: ToolbusError) -> None:
        """End every waiting call with its own copy of the error, so that tracebacks do not mix."""
        for pending in list(self._by_call_id.values()):
            pending.deliver(CallError(type(error)(error.reason, **error.data)))

    async def wait(self, pending: PendingReply, deadline: float) -> FinalReply:
        """Return the final reply of a call.

        Raises:
            ToolbusError: the call failed; `OutcomeUnknownError` if no reply came in time.

        """
        if not pending.final.done():
            pending.arm(deadline)
            try:
                return await pending.final
            finally:
                pending.timer.cancel()
        return pending.final.result()


def _timed_out() -> OutcomeUnknownError:
    return OutcomeUnknownError(
        "The call timed out; it may have been executed. "
        "Look up the call id in the audit log before retrying."
    )
