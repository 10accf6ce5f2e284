"""Adaptive concurrency limit of a server, derived from call durations. Pure."""

START_LIMIT = 32
MIN_LIMIT = 4  # minimum of the limit; so few calls do not overload a server
WINDOW = 16  # calls per decision
DECREASE = 0.75
SLOWER = 2.0  # times the tool's usual duration
SLACK = 0.01  # seconds of difference that are noise
FASTER_COUNTS, SLOWER_COUNTS = 0.2, 0.005  # weight of one call in the usual duration
MAX_TOOLS = 512


class AdaptiveLimit:
    """Concurrency limit: plus one while all slots are used, minus a quarter when calls slow down.

    The usual duration is tracked per tool, because durations of tools can differ by a factor of a
    thousand. It adapts to faster calls quickly and to slower calls slowly, so that durations under
    overload do not become the usual ones.
    """

    __slots__ = ("_busy", "_calls", "_maximum", "_slow", "_usual", "limit", "takes")

    def __init__(self, maximum: int) -> None:
        self.limit = min(START_LIMIT, maximum)
        self.takes = 0.0  # mean seconds of a call of any tool
        self._maximum = maximum
        self._usual: dict[str, float] = {}
        self._calls = self._slow = 0
        self._busy = False

    def record(self, tool: str, seconds: float, in_progress: int) -> bool:
        """Record a call and the number in progress; return whether the limit changed."""
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
        if self._busy:  # else the limit was not reached
            if self._slow * 2 > self._calls:
                self.limit = max(min(MIN_LIMIT, self._maximum), int(before * DECREASE))
            else:
                self.limit = min(self._maximum, before + 1)
        self._calls = self._slow = 0
        self._busy = False
        return self.limit != before
