"""Run budget: the total cost of one program's calls, in micro-dollars.

A call's price is reserved before the call and settled after it, so that concurrent calls never cost
more than the limit. Policy denies a call that costs more than its reservation.
"""

from dataclasses import dataclass

from toolbus_codemode.programs.limits import Cap
from toolbus_common.config import MICRO


@dataclass(slots=True)
class RunBudget:
    """Reserved and spent amounts of one program, and the limit (None: no limit)."""

    cap: Cap | None = None
    held: int = 0
    spent: int = 0

    @property
    def left(self) -> int | None:
        """Amount neither reserved nor spent; None without a limit."""
        if self.cap is None:
            return None
        return max(0, int(round(self.cap.maximum * MICRO, 3)) - self.held - self.spent)

    def hold(self, price: int) -> int:
        """Reserve a call's price, or the remaining amount if that is less."""
        left = self.left
        amount = price if left is None else min(price, left)
        self.held += amount
        return amount

    def settle(self, amount: int, charge: int) -> None:
        """Release a reservation and record its charge."""
        self.held -= amount
        self.spent += charge

    def limit_of(self, amount: int) -> int | None:
        """Return the maximum charge of a call with this reservation; None without a limit."""
        return None if self.cap is None else amount
