"""Quota of stored results: per principal and in total. Only this process's results are counted."""

from collections import deque
from dataclasses import dataclass, field
from time import time

from toolbus_common.errors import OverloadedError
from toolbus_common.nats.topology import MAX_RESULT_BYTES

MAX_BYTES = MAX_RESULT_BYTES * 3 // 4  # the rest is reserved for results of code-mode programs
MAX_PER_PRINCIPAL = MAX_BYTES // 2  # of one principal
Principal = tuple[str, str]


@dataclass(slots=True)
class Quota:
    """Counter of the bytes that are stored or reserved. Stored bytes count until they expire."""

    limit: int = MAX_BYTES
    limit_per_principal: int = MAX_PER_PRINCIPAL
    used: int = 0
    _expiries: deque[tuple[float, int, Principal]] = field(default_factory=deque)
    _per_principal: dict[Principal, int] = field(default_factory=dict)

    def take(self, size: int) -> None:
        """Reserve bytes. Raises `OverloadedError` if the store is full."""
        self._drop_expired()
        if self.used + size > self.limit:
            raise OverloadedError(
                "The result is too large to return at once, and the result store is full; "
                "request less, or retry later."
            )
        self.used += size

    def release(self, size: int) -> None:
        """Release reserved bytes that were not stored."""
        self.used -= size

    def check(self, size: int, principal_id: Principal) -> None:
        """Check whether a principal may store more bytes. Raises `OverloadedError` if not."""
        mine = self._per_principal.get(principal_id, 0)
        if mine + size > self.limit_per_principal:
            raise OverloadedError(
                f"The result is too large to return at once, and this key has {mine} bytes of "
                "results stored already; request less, or retry when they have expired."
            )

    def assign(self, size: int, principal_id: Principal, expires: float) -> None:
        """Assign reserved bytes to a principal until `expires` (seconds since the epoch)."""
        self._per_principal[principal_id] = self._per_principal.get(principal_id, 0) + size
        self._expiries.append((expires, size, principal_id))

    def _drop_expired(self) -> None:
        now = time()
        while self._expiries and self._expiries[0][0] < now:
            _, size, principal_id = self._expiries.popleft()
            self.used -= size
            self._per_principal[principal_id] -= size
            if self._per_principal[principal_id] <= 0:
                del self._per_principal[principal_id]
