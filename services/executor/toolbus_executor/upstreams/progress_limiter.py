"""Rate limit of the progress notifications of one call."""

from collections import deque

MAX_PER_SECOND = 20  # notifications in any period of one second
SECOND = 1.0


class ProgressLimiter:
    """The times of the latest notifications."""

    def __init__(self) -> None:
        self._sent: deque[float] = deque(maxlen=MAX_PER_SECOND)

    def wait(self, now: float) -> float:
        """Return the seconds until the next notification is allowed; 0 if it is allowed now."""
        if len(self._sent) < MAX_PER_SECOND:
            return 0.0
        return max(0.0, self._sent[0] + SECOND - now)

    def tell(self, now: float) -> None:
        """Record that a notification is sent at the time `now`."""
        self._sent.append(now)
