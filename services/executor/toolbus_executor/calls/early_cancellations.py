"""Cancellations that came before their calls: remembered for a moment."""

from time import monotonic

from toolbus_common.errors import CallCancelledError

SECONDS = 10.0  # policy may take a while to admit a call whose caller has left already
MOST = 10_000


class EarlyCancellations:
    """Calls nobody waits for any more. Most never come here; the oldest are forgotten first."""

    def __init__(self) -> None:
        self._heard: dict[str, float] = {}

    def __bool__(self) -> bool:
        return bool(self._heard)

    def remember(self, call_id: str) -> None:
        """Note a call that is taken back and is not under way here."""
        now = monotonic()
        self._heard.pop(call_id, None)
        self._heard[call_id] = now
        while len(self._heard) > MOST or now - next(iter(self._heard.values())) > SECONDS:
            del self._heard[next(iter(self._heard))]

    def took(self, call_id: str) -> bool:
        """Whether this call was taken back before it came."""
        at = self._heard.pop(call_id, None)
        return at is not None and monotonic() - at <= SECONDS


def taken_back_early() -> CallCancelledError:
    """What becomes of a call that nobody wanted any longer when it came."""
    return CallCancelledError("The caller took the call back before it was made.", sent=False)
