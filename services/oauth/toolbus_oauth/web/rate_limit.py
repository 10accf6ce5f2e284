"""Rate limit for operations that unauthenticated requests can trigger."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from toolbus_oauth.web.errors import OAuthError

TOO_MANY = 429


@dataclass(slots=True)
class RateLimit:
    """Sliding-window limit over all callers: at most `maximum` operations in `seconds`."""

    maximum: int
    seconds: float = 60.0
    clock: Callable[[], float] = monotonic
    _done: deque[float] = field(default_factory=deque)

    def keep(self) -> None:
        """Count one operation. Raises `OAuthError` (HTTP 429) when the limit is exceeded."""
        now = self.clock()
        while self._done and self._done[0] <= now - self.seconds:
            self._done.popleft()
        if len(self._done) >= self.maximum:
            raise OAuthError(
                "temporarily_unavailable", "Too many requests; retry in a minute.", TOO_MANY
            )
        self._done.append(now)
