"""How much may be kept: by one principal, and by everybody together, counted in this process."""

from collections import deque
from dataclasses import dataclass, field
from time import time

from toolbus_common.errors import OverloadedError
from toolbus_common.nats.topology import MOST_RESULT_BYTES

MOST = MOST_RESULT_BYTES * 3 // 4  # the rest is for results of programs
MOST_OF_ONE = MOST // 2  # of one principal
Principal = tuple[str, str]


@dataclass(slots=True)
class Allowance:
    """What is kept or being kept, each until it ends."""

    most: int = MOST
    most_of_one: int = MOST_OF_ONE
    used: int = 0
    _until: deque[tuple[float, int, Principal]] = field(default_factory=deque)
    _of: dict[Principal, int] = field(default_factory=dict)

    def take(self, size: int) -> None:
        """Use so many bytes. Raises `OverloadedError` when there is no room."""
        self._forget()
        if self.used + size > self.most:
            raise OverloadedError(
                "The result is too large to tell, and there is no room to keep it now; "
                "ask for less, or retry later."
            )
        self.used += size

    def give_back(self, size: int) -> None:
        """What was taken is not kept after all."""
        self.used -= size

    def check(self, size: int, principal_id: Principal) -> None:
        """Raises `OverloadedError` when so much more is too much for one principal."""
        mine = self._of.get(principal_id, 0)
        if mine + size > self.most_of_one:
            raise OverloadedError(
                f"The result is too large to tell, and this key keeps {mine} bytes of results "
                "already; ask for less, or retry when they are over."
            )

    def belongs(self, size: int, principal_id: Principal, ends: float) -> None:
        """What was taken is one principal's, and used until then."""
        self._of[principal_id] = self._of.get(principal_id, 0) + size
        self._until.append((ends, size, principal_id))

    def _forget(self) -> None:
        now = time()
        while self._until and self._until[0][0] < now:
            _, size, principal_id = self._until.popleft()
            self.used -= size
            self._of[principal_id] -= size
            if self._of[principal_id] <= 0:
                del self._of[principal_id]
