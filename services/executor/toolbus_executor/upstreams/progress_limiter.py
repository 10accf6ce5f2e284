"""How often one call's progress is told: a bound for any second, however often it is made."""

from collections import deque

MOST = 20  # in any second
SECOND = 1.0


class Pace:
    """The moments of what was told last."""

    def __init__(self) -> None:
        self._told: deque[float] = deque(maxlen=MOST)

    def wait(self, now: float) -> float:
        """Seconds until more may be told; 0 if it may be at once."""
        if len(self._told) < MOST:
            return 0.0
        return max(0.0, self._told[0] + SECOND - now)

    def tell(self, now: float) -> None:
        """Something is told."""
        self._told.append(now)
