"""Adaptive concurrency limit of a server, derived from the durations of calls."""

START_LIMIT = 32
MIN_LIMIT = 4  # minimum of the limit: this number of calls does not overload a server
WINDOW = 16  # calls between two adjustments
DECREASE = 0.75
SLOWER = 2.0  # a call is slow from this multiple of the tool's usual duration
SLACK = 0.01  # differences below this number of seconds are ignored
FASTER_COUNTS, SLOWER_COUNTS = 0.2, 0.005  # weights of one call in the usual duration
MAX_TOOLS = 512


class AdaptiveLimit:
    """Concurrency limit that grows by one under full use, and shrinks by a quarter on slow calls.

    The usual duration is tracked per tool, because durations of tools can differ by a factor of a
    thousand. It adapts quickly to faster calls and slowly to slower calls, so that it does not
    adapt to an overload.
    """

    __slots__ = ("_busy", "_calls", "_maximum", "_slow", "_usual", "limit", "takes")

    def __init__(self, maximum: int, start: int = START_LIMIT) -> None:
        self.limit = min(start, maximum)
        self.takes = 0.0  # mean duration of all calls in seconds
        self._maximum = maximum
        self._usual: dict[str, float] = {}
        self._calls = self._slow = 0
        self._busy = False

    def record(self, tool: str, seconds: float, in_progress: int) -> bool:
        """Record the duration of a call and the number of calls in progress.

        Return whether the limit changed.
        """
        self.takes += (seconds - self.takes) * 0.1
        if len(self._usual) >= MAX_TOOLS:
            self._usual.clear()
        usual = self._usual.get(tool, seconds)
        weight = FASTER_COUNTS if seconds < usual else SLOWER_COUNTS
        self._usual[tool] = usual + (seconds - usual) * weight
        self._calls += 1
        self._slow += seconds > SLOWER * usual + SLACK
        self._busy = self._busy or in_progress >= self.limit
        return self._calls >= WINDOW and self._adjust()

    def _adjust(self) -> bool:
        before = self.limit
        if self._busy:  # otherwise the limit was never reached
            if self._slow * 2 > self._calls:
                self.limit = max(min(MIN_LIMIT, self._maximum), int(before * DECREASE))
            else:
                self.limit = min(self._maximum, before + 1)
        self._calls = self._slow = 0
        self._busy = False
        return self.limit != before
