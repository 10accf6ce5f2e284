"""How often what anybody may ask for is done: so many times a while, for all together."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from toolbus_oauth.web.errors import OAuthError

TOO_MANY = 429


@dataclass(slots=True)
class Pace:
    """What is kept of each costs service, so that nobody can fill it at will."""

    most: int
    seconds: float = 60.0
    clock: Callable[[], float] = monotonic
    _done: deque[float] = field(default_factory=deque)

    def keep(self) -> None:
        """Count one more. Raises `OAuthError` when it is one too many."""
        now = self.clock()
        while self._done and self._done[0] <= now - self.seconds:
            self._done.popleft()
        if len(self._done) >= self.most:
            raise OAuthError("temporarily_unavailable", "Too many at once; try again.", TOO_MANY)
        self._done.append(now)
