"""Cost of an admitted call, and the limits that apply to it (no I/O).

Calls share these objects as long as the configuration of their key is unchanged, so that each
property is computed once.
"""

from dataclasses import dataclass
from functools import cached_property

from toolbus_common.access import session_owner
from toolbus_common.access.anonymous import is_anonymous
from toolbus_common.access.pricing import FREE, Cost
from toolbus_common.access.principal import Principal
from toolbus_common.config import Content
from toolbus_policy.ledger.limits import BudgetLimit, LoopLimit, RateLimit


@dataclass(frozen=True)
class Payer:
    """A key with its hierarchy, and the limits of every level."""

    principal: Principal
    team: str
    user: str
    budgets: tuple[BudgetLimit, ...]
    rates: tuple[RateLimit, ...]
    loops: tuple[LoopLimit, ...] = ()
    environment: str = ""
    id: str = ""  # principal id: selects the state at servers that calls may use

    def id_for(self, key_digest: str) -> str:
        """Return the id of the principal whose state at servers a call may use.

        Each anonymous client has its own id.
        """
        return (
            session_owner.principal_id_of(self.principal, key_digest)
            if is_anonymous(key_digest)
            else self.id
        )

    @cached_property
    def key(self) -> str:
        """The key's name."""
        return self.principal.key

    @cached_property
    def customer(self) -> str:
        """The customer who pays."""
        return self.principal.customer


@dataclass(frozen=True)
class Admission:
    """An authorized call: its payer, its cost, and the limits that apply to it.

    Calls without a price are not limited by budgets in money. Only tool calls count against
    budgets. `cause` is the level that requires approval; else empty. `definition` is the digest of
    the tool or prompt as listed. `content` and `result_content` are the recorded forms of arguments
    and results. `strict` means that a level requires arguments to match their schema.
    """

    payer: Payer
    cost: Cost = FREE
    budgets: tuple[BudgetLimit, ...] = ()
    loops: tuple[LoopLimit, ...] = ()
    cause: str = ""
    definition: str = ""
    content: Content = "digest"
    result_content: Content = "digest"
    strict: bool = False

    @cached_property
    def charge(self) -> int:
        """The amount to reserve for the call, in micro-dollars."""
        return self.cost.reserved

    @cached_property
    def limited(self) -> bool:
        """Whether the call needs a reservation or a limit check."""
        return bool(self.budgets or self.loops or self.payer.rates)
