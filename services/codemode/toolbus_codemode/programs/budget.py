"""What the calls of one program may cost together, in micro-dollars.

A call's price is held before it is asked for and settled when it has ended, so that calls made at
once never cost more than the cap. Policy refuses the call that costs more than was held for it.
"""

from dataclasses import dataclass

from toolbus_codemode.programs.limits import Cap
from toolbus_common.config import MICRO


@dataclass(slots=True)
class Purse:
    """Held and spent, within the cap if there is one."""

    cap: Cap | None = None
    held: int = 0
    spent: int = 0

    @property
    def left(self) -> int | None:
        """What nobody holds and nobody has spent; None without a cap."""
        if self.cap is None:
            return None
        return max(0, int(round(self.cap.most * MICRO, 3)) - self.held - self.spent)

    def hold(self, price: int) -> int:
        """Hold a call's price, or all that is left where that is less."""
        left = self.left
        amount = price if left is None else min(price, left)
        self.held += amount
        return amount

    def settle(self, amount: int, charge: int) -> None:
        """End a hold: of its amount, this was charged."""
        self.held -= amount
        self.spent += charge

    def most(self, amount: int) -> int | None:
        """What a call with this hold may be charged; None where nothing bounds it."""
        return None if self.cap is None else amount
