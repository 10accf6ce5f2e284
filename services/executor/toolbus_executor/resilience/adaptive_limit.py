"""How many calls a server is given at once: found out from how long they take, and pure."""

START = 32
LEAST = 4  # fewer than these are never what makes a server slow
WINDOW = 16  # calls a decision is made from
LESS = 0.75
SLOWER = 2.0  # times what the tool usually takes
SLACK = 0.01  # seconds that say nothing about a server
FASTER_COUNTS, SLOWER_COUNTS = 0.2, 0.005  # how far one call moves what is usual
MOST_TOOLS = 512


class Adaptive:
    """Adds one place as long as all are used and calls take their usual time; else takes a quarter.

    What is usual is known for each tool, because one may take a thousand times as long as another.
    It follows calls that were faster soon, and slower ones hardly, so that a crowd is not usual.
    """

    __slots__ = ("_busy", "_calls", "_most", "_slow", "_usual", "limit", "takes")

    def __init__(self, most: int) -> None:
        self.limit = min(START, most)
        self.takes = 0.0  # seconds of a call, whatever its tool
        self._most = most
        self._usual: dict[str, float] = {}
        self._calls = self._slow = 0
        self._busy = False

    def took(self, tool: str, seconds: float, under_way: int) -> bool:
        """Take note of a call, with how many were under way; True when the limit has changed."""
        self.takes += (seconds - self.takes) * 0.1
        if len(self._usual) >= MOST_TOOLS:
            self._usual.clear()
        usual = self._usual.get(tool, seconds)
        weight = FASTER_COUNTS if seconds < usual else SLOWER_COUNTS
        self._usual[tool] = usual + (seconds - usual) * weight
        self._calls += 1
        self._slow += seconds > SLOWER * usual + SLACK
        self._busy = self._busy or under_way >= self.limit
        return self._calls >= WINDOW and self._decided()

    def _decided(self) -> bool:
        before = self.limit
        if self._busy:  # else the limit was none, and says nothing
            if self._slow * 2 > self._calls:
                self.limit = max(min(LEAST, self._most), int(before * LESS))
            else:
                self.limit = min(self._most, before + 1)
        self._calls = self._slow = 0
        self._busy = False
        return self.limit != before
