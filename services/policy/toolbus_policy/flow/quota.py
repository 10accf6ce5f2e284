"""Bound the entries that one principal can add to the bucket of all runs."""

from collections import Counter
from time import time

from toolbus_common.errors import OverloadedError

DAY = 86_400.0
MAX_NEW_RUNS = 20_000  # of one principal, a day, at one replica


class RunQuota:
    """Counter of new runs by principal. It is reset every day and when the process starts."""

    def __init__(self, maximum: int = MAX_NEW_RUNS) -> None:
        self._maximum = maximum
        self._made: Counter[str] = Counter()
        self._day = 0.0

    def take(self, owner: str) -> None:
        """Count a new run. Raises `OverloadedError` if the principal has too many.

        Without this bound, one client that begins a session for each call could fill the bucket,
        and then no principal's reads could be recorded.
        """
        day = time() // DAY
        if day != self._day:
            self._day = day
            self._made.clear()
        if self._made[owner] >= self._maximum:
            raise OverloadedError(
                f"This key began {self._maximum} runs today that read private or untrusted "
                "content. Use one session for several calls, or declare 'flow: {per: key}'."
            )
        self._made[owner] += 1
