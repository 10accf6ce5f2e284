"""Waiting for answers: each call has a slot, each slot takes notifications and one ending."""

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

GRACE = 1.0  # seconds past the deadline that the service which holds the call may use to say so


class PendingReply:
    """Where one call's answer arrives. `ending` resolves to the frame that ended it."""

    __slots__ = ("_on_extended", "_on_told", "_until", "ending", "timer")

    def __init__(
        self,
        ending: asyncio.Future[FinalReply],
        on_told: Callable[[CallNotification], None] | None = None,
        on_extended: Callable[[float], None] | None = None,
    ) -> None:
        self.ending = ending
        self._on_told = on_told
        self._on_extended = on_extended
        self._until = 0.0  # the deadline, once the call was extended

    def arm(self, deadline: float) -> None:
        """Give up at this deadline, or at the one the call is extended to."""
        seconds = max(0.0, deadline - time()) + GRACE
        self.timer = self.ending.get_loop().call_later(seconds, self._give_up)

    def deliver(self, frame: ReplyMessage) -> None:
        """Take a frame; anything after the ending is late and dropped."""
        if self.ending.done():
            return
        if isinstance(frame, CallError):
            self.ending.set_exception(frame.error)
        elif isinstance(frame, DeadlineExtended):
            self._extend(frame.deadline)
        elif not isinstance(frame, CallNotification):
            self.ending.set_result(frame)
        elif self._on_told is not None:
            self._on_told(frame)

    def _extend(self, deadline: float) -> None:
        self._until = max(self._until, deadline)  # the timer is set again only when it fires
        if self._on_extended is not None:
            self._on_extended(self._until)

    def _give_up(self) -> None:
        if self._until > time():
            self.arm(self._until)
        else:
            self.deliver(CallError(_nobody_answered()))


class PendingReplies:
    """All slots of this process, by call id. Ids are our own, so no two callers can collide."""

    def __init__(self) -> None:
        self._slots: dict[str, PendingReply] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        return len(self._slots)

    def open(
        self,
        call_id: str,
        on_told: Callable[[CallNotification], None] | None = None,
        on_extended: Callable[[float], None] | None = None,
    ) -> PendingReply:
        """A slot for a call about to be sent."""
        if self._loop is None:  # asked once: on 3.11 each asking is a system call
            self._loop = asyncio.get_running_loop()
        slot = self._slots[call_id] = PendingReply(self._loop.create_future(), on_told, on_extended)
        return slot

    def close(self, call_id: str) -> None:
        """Forget a call; frames that still come for it are dropped."""
        slot = self._slots.pop(call_id, None)
        if slot is not None:
            # An error knows the frames it passed, one of them the slot, and the slot the error:
            # the collector would have to find that circle, in a pause that every call waits for.
            del slot.ending

    def deliver(self, call_id: str, frame: ReplyMessage) -> None:
        """Hand a frame to whoever waits for it."""
        slot = self._slots.get(call_id)
        if slot is not None:
            slot.deliver(frame)

    def fail(self, call_id: str, error: ToolbusError) -> None:
        """End one call."""
        self.deliver(call_id, CallError(error))

    def fail_all(self, error: ToolbusError) -> None:
        """End every waiting call, each with its own copy: tracebacks must not grow into another."""
        for slot in list(self._slots.values()):
            slot.deliver(CallError(type(error)(error.reason, **error.data)))

    async def wait(self, slot: PendingReply, deadline: float) -> FinalReply:
        """The frame that ended a call.

        Raises:
            ToolbusError: the call ended otherwise; `OutcomeUnknownError` when nobody answered.

        """
        if not slot.ending.done():
            slot.arm(deadline)
            try:
                return await slot.ending
            finally:
                slot.timer.cancel()
        return slot.ending.result()


def _nobody_answered() -> OutcomeUnknownError:
    return OutcomeUnknownError(
        "No answer came within the call's deadline; it may or may not have happened. "
        "Look the call id up in the audit before repeating it."
    )
