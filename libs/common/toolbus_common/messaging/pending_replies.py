"""Calls that this process waits for: notifications, then exactly one final reply per call."""

import asyncio
from collections.abc import Callable

from toolbus_common.contracts.replies import (
    CallError,
    CallNotification,
    CallResult,
    DeadlineExtended,
    Reply,
    ReplyMessage,
)
from toolbus_common.errors import OutcomeUnknownError, ToolbusError

GRACE = 1.0  # seconds past the deadline in which another process may still report a timeout
# Seconds past the deadline in which a handler of this process may still end by itself: longer than
# it waits until an outcome is stored.
HANDLER_GRACE = 5.0
_TAKEN = CallResult(b"")


class PendingReply:
    """One call and its caller. It is the context of a handler in this process.

    `task` runs that handler; None if another process handles the call.
    """

    __slots__ = (
        "_cancel_at",
        "_deadline",
        "_final",
        "_on_extended",
        "_received",
        "expired",
        "on_notification",
        "task",
    )  # fmt: skip

    def __init__(
        self,
        deadline: float,
        on_notification: Callable[[CallNotification], None] | None = None,
        on_extended: Callable[[float], None] | None = None,
    ) -> None:
        self._deadline = deadline
        self.on_notification = on_notification
        self._on_extended = on_extended
        self._final: Reply | None = None
        self._received: asyncio.Future[None] | None = None  # created when the caller waits
        self.task: asyncio.Task[object] | None = None
        self.expired = 0  # the number of times that `task` was cancelled
        self._cancel_at = 0.0

    async def send(self, message: ReplyMessage) -> None:
        """Pass a message of a handler in this process to the caller."""
        self.deliver(message)

    def deliver(self, message: ReplyMessage) -> None:
        """Accept a message; messages after the final reply are dropped."""
        if self._final is not None:
            return
        if isinstance(message, DeadlineExtended):
            self._deadline = max(self._deadline, message.deadline)
            if self._on_extended is not None:
                self._on_extended(self._deadline)
        elif isinstance(message, CallNotification):
            if self.on_notification is not None:
                self.on_notification(message)
        else:
            self._final = message
            if self._received is not None and not self._received.done():
                self._received.set_result(None)

    def wait(self) -> asyncio.Future[None]:
        """Return a future that ends when the final reply, from another process, has arrived."""
        self._received = asyncio.get_running_loop().create_future()
        if self._final is not None:
            self._received.set_result(None)
        return self._received

    def take(self) -> Reply:
        """Return the final reply that has arrived, once; messages after it are still dropped."""
        assert self._final is not None  # noqa: S101
        # A reply that stays here would form a cycle with the traceback of its error.
        final, self._final = self._final, _TAKEN
        return final

    def fail(self, error: ToolbusError) -> None:
        """End the call with an error if its reply is to come from another process."""
        if self._received is not None:
            self.deliver(CallError(error))

    def expire(self, now: float) -> None:
        """End the call if its deadline passed too long ago; `now` is in seconds since the epoch.

        A handler of this process is cancelled: it reports the end of the call itself. It is
        cancelled again if it is still running later, because a cancellation can get lost.
        """
        if self._received is not None:
            if now > self._deadline + GRACE:
                self.deliver(timed_out())
        elif self.task is not None and now > max(self._deadline, self._cancel_at) + HANDLER_GRACE:
            self.expired += 1
            self._cancel_at = now
            self.task.cancel()

    def detach(self) -> None:
        """Withdraw the cancellations of `expire`, and ignore its later calls and all messages."""
        task, self.task = self.task, None
        self.on_notification = self._on_extended = None
        if task is not None:
            for _ in range(self.expired):
                task.uncancel()


class PendingReplies:
    """The pending replies of this process by call id. The ids are generated here and unique."""

    def __init__(self) -> None:
        self._by_call_id: dict[str, PendingReply] = {}

    def __len__(self) -> int:
        return len(self._by_call_id)

    @property
    def tasks(self) -> set[asyncio.Task[object]]:
        """The tasks that run handlers of this process for a caller."""
        return {each.task for each in self._by_call_id.values() if each.task is not None}

    def open(
        self,
        call_id: str,
        deadline: float,
        on_notification: Callable[[CallNotification], None] | None = None,
        on_extended: Callable[[float], None] | None = None,
    ) -> PendingReply:
        """Register a call that is about to be sent."""
        pending = PendingReply(deadline, on_notification, on_extended)
        self._by_call_id[call_id] = pending
        return pending

    def close(self, call_id: str) -> None:
        """Remove a call. Messages that arrive later for this call are dropped."""
        pending = self._by_call_id.pop(call_id, None)
        if pending is not None:
            pending.detach()

    def deliver(self, call_id: str, message: ReplyMessage) -> None:
        """Pass a message to the caller that waits for it."""
        pending = self._by_call_id.get(call_id)
        if pending is not None:
            pending.deliver(message)

    def fail(self, call_id: str, error: ToolbusError) -> None:
        """End one call with an error."""
        self.deliver(call_id, CallError(error))

    def fail_all(self, error: ToolbusError) -> None:
        """End every call that waits for another process.

        Each gets its own copy of the error, so that tracebacks do not mix.
        """
        for pending in list(self._by_call_id.values()):
            pending.fail(type(error)(error.reason, **error.data))

    def expire(self, now: float) -> None:
        """End the calls whose deadline passed without a final reply."""
        for pending in list(self._by_call_id.values()):
            pending.expire(now)


def timed_out() -> CallError:
    """Return the reply to a call that did not end in time."""
    return CallError(
        OutcomeUnknownError(
            "The call timed out; it may have been executed. "
            "Look up the call id in the audit log before retrying."
        )
    )
