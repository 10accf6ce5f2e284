"""Answer operators' ledger queries: budget states, and requests to rebuild counters."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import time

from toolbus_common.access.config_snapshot import ConfigSnapshot
from toolbus_common.config import Period
from toolbus_common.contracts import (
    BudgetState,
    LedgerQuery,
    LedgerReply,
    RebuildReply,
    RebuildRequest,
)
from toolbus_common.errors import InvalidError
from toolbus_policy.ledger.ledger import Ledger
from toolbus_policy.ledger.limits import BudgetLimit
from toolbus_policy.ledger.periods import PARTS, part_length, span
from toolbus_policy.ledger.recovery.rebuild import Rebuilder
from toolbus_policy.ledger.recovery.rebuild_counters import limits_of

MAX_BUDGETS = 5000


@dataclass(frozen=True, slots=True)
class LedgerQueryHandler:
    """Handler of ledger queries. It only reads the counters; the rebuilder changes them."""

    ledger: Ledger
    rebuilder: Rebuilder
    snapshot: Callable[[], ConfigSnapshot]
    used: Callable[[], Iterable[str]]

    async def handle_query(self, query: LedgerQuery) -> LedgerReply:
        """Return every budget of one customer, or of all customers with counters."""
        budgets: list[BudgetState] = []
        lost: dict[str, str] = {}
        for customer in [query.customer] if query.customer else sorted(self.used()):
            budgets += await self._budgets(customer, lost)
        return LedgerReply(
            budgets=tuple(budgets[:MAX_BUDGETS]), lost=lost, more=len(budgets) > MAX_BUDGETS
        )

    async def handle_rebuild(self, query: RebuildRequest) -> RebuildReply:
        """Rebuild a customer's counters, even if they are not known to be lost.

        Raises `InvalidError` if the customer has no counters, and the errors of the rebuild.
        """
        reply = await self.rebuilder.rebuild(
            query.customer, force=True, accept=query.accept, by=query.by
        )
        if reply is None:
            raise InvalidError(
                f"Customer '{query.customer}' has no counters to rebuild, because none of "
                "its calls has been charged. Check the customer's name."
            )
        return reply

    async def _budgets(self, customer: str, lost: dict[str, str]) -> list[BudgetState]:
        known = await self.ledger.generations.known(customer)
        if known is not None and await self.ledger.is_lost(customer, known):
            lost[customer] = self.ledger.rebuild_errors.get(
                customer, "Its counters are being rebuilt."
            )
        snapshot = self.snapshot()
        found = limits_of(customer, snapshot.configuration, snapshot.keys).values()
        limits = [limit for level in found for limit in level][: MAX_BUDGETS + 1]
        generation = known.generation.id if known is not None else ""
        levels = await self.ledger.store.read_levels(
            customer, generation, [each.counter for each in limits]
        )
        now = time()
        return [_budget_state(customer, *each, now) for each in zip(limits, levels, strict=True)]


def _budget_state(
    customer: str, limit: BudgetLimit, level: dict[str, int], now: float
) -> BudgetState:
    budget = limit.budget
    spent, resets_at = (_rolling if budget.rolling else _calendar)(limit, level, now)
    return BudgetState(
        customer=customer, level=limit.level, kind="usd" if limit.in_money else "calls",
        per=budget.per, timezone=budget.timezone, rolling=budget.rolling, tools=budget.tools,
        models=budget.models, limit=limit.maximum, spent=spent, reserved=level.get("reserved", 0),
        debt=level.get("debt", 0), resets_at=resets_at,
    )  # fmt: skip


def _calendar(limit: BudgetLimit, level: dict[str, int], now: float) -> tuple[int, float]:
    start, end = span(Period(limit.budget.per), limit.budget.zone, now)
    return level.get("spent", 0) if level.get("window", 0) >= start else 0, end


def _rolling(limit: BudgetLimit, level: dict[str, int], now: float) -> tuple[int, float]:
    length = part_length(Period(limit.budget.per))
    present = int(now) // length
    parts = {int(name[1:]): spent for name, spent in level.items() if name[0] == "b"}
    counted = {number: spent for number, spent in parts.items() if number >= present - PARTS}
    oldest = min(counted, default=present)
    return sum(counted.values()), (oldest + PARTS + 1) * length
