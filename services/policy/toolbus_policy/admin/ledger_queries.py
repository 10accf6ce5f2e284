"""Answers operators about the ledger: how the budgets stand, and that it be rebuilt."""

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
from toolbus_policy.ledger.periods import PARTS, part, span
from toolbus_policy.ledger.recovery.rebuild import Rebuilder
from toolbus_policy.ledger.recovery.rebuild_counters import limits_of

MOST = 5000


@dataclass(frozen=True, slots=True)
class Clerk:
    """Reads the counters as they are; only the rebuilder changes them."""

    ledger: Ledger
    rebuilder: Rebuilder
    snapshot: Callable[[], ConfigSnapshot]
    used: Callable[[], Iterable[str]]

    async def tell(self, question: LedgerQuery) -> LedgerReply:
        """Every budget of one customer, or of all that ever spent."""
        budgets: list[BudgetState] = []
        lost: dict[str, str] = {}
        for customer in [question.customer] if question.customer else sorted(self.used()):
            budgets += await self._budgets(customer, lost)
        return LedgerReply(budgets=tuple(budgets[:MOST]), lost=lost, more=len(budgets) > MOST)

    async def rebuild(self, question: RebuildRequest) -> RebuildReply:
        """Make a customer's counters anew, though nothing seems to be lost."""
        told = await self.rebuilder.rebuild(
            question.customer, force=True, accept=question.accept, by=question.by
        )
        if told is None:
            raise InvalidError(f"Nobody has spent anything for {question.customer!r} yet.")
        return told

    async def _budgets(self, customer: str, lost: dict[str, str]) -> list[BudgetState]:
        known = await self.ledger.epochs.known(customer)
        if known is not None and await self.ledger.is_lost(customer, known):
            lost[customer] = self.ledger.why_lost.get(customer, "Its counters are being rebuilt.")
        snapshot = self.snapshot()
        found = limits_of(customer, snapshot.declaration, snapshot.keys).values()
        limits = [limit for level in found for limit in level][: MOST + 1]
        epoch = known.epoch.id if known is not None else ""
        levels = await self.ledger.store.levels(customer, epoch, [each.counter for each in limits])
        now = time()
        return [_told(customer, *each, now) for each in zip(limits, levels, strict=True)]


def _told(customer: str, limit: BudgetLimit, level: dict[str, int], now: float) -> BudgetState:
    budget = limit.budget
    spent, resets_at = (_rolling if budget.rolling else _calendar)(limit, level, now)
    return BudgetState(
        customer=customer, level=limit.level, kind="usd" if limit.in_money else "calls",
        per=budget.per, timezone=budget.timezone, rolling=budget.rolling, tools=budget.tools,
        limit=limit.most, spent=spent, held=level.get("held", 0), debt=level.get("debt", 0),
        resets_at=resets_at,
    )  # fmt: skip


def _calendar(limit: BudgetLimit, level: dict[str, int], now: float) -> tuple[int, float]:
    start, end = span(Period(limit.budget.per), limit.budget.zone, now)
    return level.get("spent", 0) if level.get("window", 0) >= start else 0, end


def _rolling(limit: BudgetLimit, level: dict[str, int], now: float) -> tuple[int, float]:
    length = part(Period(limit.budget.per))
    present = int(now) // length
    parts = {int(name[1:]): spent for name, spent in level.items() if name[0] == "b"}
    counted = {number: spent for number, spent in parts.items() if number >= present - PARTS}
    oldest = min(counted, default=present)
    return sum(counted.values()), (oldest + PARTS + 1) * length
