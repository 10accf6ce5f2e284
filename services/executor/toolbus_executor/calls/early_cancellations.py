"""Cancellations that arrive before their calls. They are stored for ten seconds."""

from time import monotonic

from toolbus_common.errors import CallCancelledError

SECONDS = 10.0  # time for policy to admit a call whose caller has already disconnected
MAX_ENTRIES = 10_000


class EarlyCancellations:
    """Cancelled calls that have not arrived yet.

    Most of them never arrive. The oldest entries are removed first.
    """

    def __init__(self) -> None:
        self.cancelled_at: dict[str, float] = {}  # monotonic seconds by call id

    def remember(self, call_id: str) -> None:
        """Store the id of a cancelled call that is not in progress here."""
        now = monotonic()
        self.cancelled_at.pop(call_id, None)
        self.cancelled_at[call_id] = now
        while (
            len(self.cancelled_at) > MAX_ENTRIES
            or now - next(iter(self.cancelled_at.values())) > SECONDS
        ):
            del self.cancelled_at[next(iter(self.cancelled_at))]

    def take(self, call_id: str) -> bool:
        """Remove a call's cancellation; return whether there was a recent one."""
        at = self.cancelled_at.pop(call_id, None)
        return at is not None and monotonic() - at <= SECONDS


def cancelled_early() -> CallCancelledError:
    """Return the error for a call that was cancelled before it was dispatched."""
    return CallCancelledError(
        "The caller cancelled the call before it was dispatched; it was not executed.", sent=False
    )
