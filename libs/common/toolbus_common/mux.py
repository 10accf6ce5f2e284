"""Waiting for answers: each call has a slot, each slot takes notifications and one ending."""

import asyncio
from collections.abc import Callable
from time import time

from toolbus_common.contracts.frames import Ending, Failed, Frame, Told
from toolbus_common.errors import OutcomeUnknownError, ToolbusError

GRACE = 1.0  # seconds past the deadline that the room which holds the call may use to say so


class Slot:
    """Where one call's answer arrives. `ending` resolves to the frame that ended it."""

    __slots__ = ("_on_told", "ending")

    def __init__(
        self, ending: asyncio.Future[Ending], on_told: Callable[[Told], None] | None = None
    ) -> None:
        self.ending = ending
        self._on_told = on_told

    def deliver(self, frame: Frame) -> None:
        """Take a frame; anything after the ending is late and dropped."""
        if self.ending.done():
            return
        if isinstance(frame, Failed):
            self.ending.set_exception(frame.error)
        elif not isinstance(frame, Told):
            self.ending.set_result(frame)
        elif self._on_told is not None:
            self._on_told(frame)


class ReplyMux:
    """All slots of this process, by call id. Ids are our own, so no two callers can collide."""

    def __init__(self) -> None:
        self._slots: dict[str, Slot] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        return len(self._slots)

    def open(self, call_id: str, on_told: Callable[[Told], None] | None = None) -> Slot:
        """A slot for a call about to be sent."""
        if self._loop is None:  # asked once: on 3.11 each asking is a system call
            self._loop = asyncio.get_running_loop()
        slot = self._slots[call_id] = Slot(self._loop.create_future(), on_told)
        return slot

    def close(self, call_id: str) -> None:
        """Forget a call; frames that still come for it are dropped."""
        slot = self._slots.pop(call_id, None)
        if slot is not None:
            # An error knows the frames it passed, one of them the slot, and the slot the error:
            # the collector would have to find that circle, in a pause that every call waits for.
            del slot.ending

    def deliver(self, call_id: str, frame: Frame) -> None:
        """Hand a frame to whoever waits for it."""
        slot = self._slots.get(call_id)
        if slot is not None:
            slot.deliver(frame)

    def fail(self, call_id: str, error: ToolbusError) -> None:
        """End one call."""
        self.deliver(call_id, Failed(error))

    def fail_all(self, error: ToolbusError) -> None:
        """End every waiting call, each with its own copy: tracebacks must not grow into another."""
        for slot in list(self._slots.values()):
            slot.deliver(Failed(type(error)(error.reason, **error.data)))

    async def wait(self, slot: Slot, deadline: float) -> Ending:
        """The frame that ended a call.

        Raises:
            ToolbusError: the call ended otherwise; `OutcomeUnknownError` when nobody answered.

        """
        if not slot.ending.done():
            timer = slot.ending.get_loop().call_later(
                max(0.0, deadline - time()) + GRACE, _give_up, slot
            )
            try:
                return await slot.ending
            finally:
                timer.cancel()
        return slot.ending.result()


def _give_up(slot: Slot) -> None:
    slot.deliver(Failed(_nobody_answered()))


def _nobody_answered() -> OutcomeUnknownError:
    return OutcomeUnknownError(
        "No answer came within the call's deadline; it may or may not have happened. "
        "Look the call id up in the audit before repeating it."
    )
