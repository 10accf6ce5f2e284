"""What an admitted call costs, and which limits it must fit. Pure."""

from dataclasses import dataclass

from toolbus_common.access import session_owner
from toolbus_common.access.anonymous import is_anonymous
from toolbus_common.access.pricing import FREE, Cost
from toolbus_common.access.principal import Principal
from toolbus_common.config import Content
from toolbus_policy.ledger.limits import (
    BudgetLimit,
    LoopLimit,
    RateLimit,
)


@dataclass(frozen=True, slots=True)
class Payer:
    """A key with everything above it, and the limits of all of them."""

    principal: Principal
    team: str
    user: str
    budgets: tuple[BudgetLimit, ...]
    rates: tuple[RateLimit, ...]
    loops: tuple[LoopLimit, ...] = ()
    environment: str = ""
    id: str = ""  # whose state at servers its calls may touch

    def id_for(self, key_digest: str) -> str:
        """Return whose state the calls of a proof may touch: anonymous clients have their own."""
        return (
            session_owner.principal_id_of(self.principal, key_digest)
            if is_anonymous(key_digest)
            else self.id
        )

    @property
    def key(self) -> str:
        """The key's name."""
        return self.principal.key

    @property
    def customer(self) -> str:
        """Who pays."""
        return self.principal.customer


@dataclass(frozen=True, slots=True)
class Admission:
    """A yes: for whom, at what cost, and which limits the call must fit.

    A free call fits every budget in money, and only calls of tools count against budgets. `cause`
    is the level that wants a person asked first; empty when none does. `definition` is the digest
    of the tool or prompt as it is shown; `content` and `result_content` are how much is recorded.
    `strict` says that a level wants arguments to fit their schema.
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

    @property
    def charge(self) -> int:
        """What is held for the call, in micro-dollars."""
        return self.cost.held

    @property
    def limited(self) -> bool:
        """Whether the ledger has to be asked at all."""
        return bool(self.budgets or self.loops or self.payer.rates)
