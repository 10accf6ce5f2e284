"""Circuit breaker of one server. The current time is an argument (monotonic seconds)."""

from enum import StrEnum


class State(StrEnum):
    """State of a breaker: closed admits calls, open rejects calls, half-open admits one probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """Circuit breaker that opens after `threshold` consecutive failures.

    The first opening lasts `pause` seconds. Each further opening without a success lasts longer, up
    to `longest` seconds.
    """

    def __init__(self, threshold: int = 5, pause: float = 5.0, longest: float = 60.0) -> None:
        self.state = State.CLOSED
        self.retry_at = 0.0
        self._threshold = threshold
        self._pause = pause
        self._longest = longest
        self.failures = 0  # consecutive ones
        self._openings = 0

    def admits(self, now: float) -> bool:
        """Return whether a call is admitted. The first call after the pause is the probe."""
        if self.state is State.CLOSED:
            return True
        if self.state is State.OPEN and now >= self.retry_at:
            self.state = State.HALF_OPEN
            return True
        return False

    def succeeded(self) -> bool:
        """Count a success, and return whether it closed the breaker."""
        closed = self.state is not State.CLOSED
        self.state, self.failures, self._openings = State.CLOSED, 0, 0
        return closed

    def failed(self, now: float) -> bool:
        """Count a transport failure; return whether it opened the breaker."""
        self.failures += 1
        if self.state is State.CLOSED and self.failures < self._threshold:
            return False
        if self.state is State.OPEN:
            return False
        self._openings += 1
        self.state = State.OPEN
        self.retry_at = now + min(self._longest, self._pause * self._openings)
        return True

    def abandoned(self, now: float) -> None:
        """Release an admitted call that ended without a result.

        The next call can then be the probe.
        """
        if self.state is State.HALF_OPEN:
            self.state, self.retry_at = State.OPEN, now
