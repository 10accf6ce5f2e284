"""What a customer's counters hold by the events: from rows and open calls to counters. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolbus_common.access.principal import principal_of
from toolbus_common.access.tool_patterns import full_name
from toolbus_common.config import Budget, Configuration, Key, Period
from toolbus_common.contracts import OpenCall
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_policy.ledger.limits import BudgetLimit, budgets_of
from toolbus_policy.ledger.periods import opening, part
from toolbus_policy.ledger.reservation import About, Record, counters_of
from toolbus_policy.ledger.valkey_store import Contents

CORRECTABLE = 86_400.0  # seconds an outcome may still correct what was charged as unknown
Row = tuple[Any, ...]  # as `SpendingTold` has them
Limits = Mapping[str, Sequence[BudgetLimit]]  # by level


@dataclass(frozen=True, slots=True, order=True)
class Need:
    """Sums the counters of some budgets are made of: from a second on, in steps (0: in one)."""

    start: float
    step: int


def limits_of(customer: str, declared: Configuration, keys: Mapping[str, Key]) -> Limits:
    """The budgets of every level this customer pays for."""
    limits: dict[str, tuple[BudgetLimit, ...]] = {}
    for name, key in keys.items():
        principal = principal_of(name, key, declared)
        if principal.customer == customer:
            levels = [each for each in principal.levels if each[0] not in limits]
            limits |= {told: budgets_of([(told, level)]) for told, level in levels}
    above = [("team", declared.teams), ("user", declared.users)]
    for kind, section in above:
        for name, level in section.items():  # type: ignore[attr-defined]
            if (level.customer or DEFAULT_CUSTOMER) == customer:
                limits[f"{kind}:{name}"] = budgets_of([(f"{kind}:{name}", level)])
    if customer in declared.customers:
        told = f"customer:{customer}"
        limits[told] = budgets_of([(told, declared.customers[customer])])
    return {told: found for told, found in limits.items() if found}


def need_of(budget: Budget, now: float) -> Need:
    """What a budget's counter is made of."""
    return Need(opening(budget, now), part(Period(budget.per)) if budget.rolling else 0)


def needs_of(limits: Limits, now: float) -> list[Need]:
    """Every sum that has to be asked for, once."""
    return sorted({need_of(each.budget, now) for found in limits.values() for each in found})


class Restoring:
    """Fills an epoch's contents."""

    def __init__(self, customer: str, limits: Limits, now: float, grace: float) -> None:
        self._customer, self._limits, self._grace = customer, limits, grace
        self.contents = Contents()
        every = [limit for found in limits.values() for limit in found]
        self._needs = {limit.counter: need_of(limit.budget, now) for limit in every}
        for limit in every:
            self._level(limit)

    def spent(self, need: Need, rows: Iterable[Row]) -> None:
        """Take the sums of one need."""
        for key, user, team, server, tool, step, calls, charge in rows:
            for limit in self._counting(key, user, team, full_name(server, tool)):
                if self._needs[limit.counter] == need:
                    amount = charge if limit.in_money else calls
                    level, field = self._level(limit), f"b{step}" if need.step else "spent"
                    level[field] = level.get(field, 0) + amount

    def still_open(self, call: OpenCall) -> None:
        """Hold what a call may yet be charged; charged as unknown, it counts already."""
        name = full_name(call.server, call.tool)
        counting = self._counting(call.key, call.user, call.team, name)
        limits = [limit for limit in counting if limit.counts(name, call.charge)]
        if not limits:
            return
        if not call.unknown_at:
            for limit in limits:
                self._level(limit)["held"] += call.charge if limit.in_money else 1
        after = max(0, call.stream_seq - 1)  # the sweeper finds the intent where audit has it from
        about = About(
            call.server, call.tool, call.key, call.trace_id, call.parent_id, after
        ).encode()
        state = "u" if call.unknown_at else "d"
        record = Record(state, int(call.at), call.charge, counters_of(limits), about)
        self.contents.records[call.call_id] = record.encode()
        known_until = call.unknown_at + CORRECTABLE
        due = known_until if call.unknown_at else call.deadline + self._grace
        self.contents.due[call.call_id] = int(due * 1000)

    def _counting(self, key: str, user: str, team: str, name: str) -> list[BudgetLimit]:
        levels = (f"key:{key}", f"user:{user}", f"team:{team}", f"customer:{self._customer}")
        return [
            limit
            for level in levels
            for limit in self._limits.get(level, ())
            if limit.counts(name, 1)
        ]

    def _level(self, limit: BudgetLimit) -> dict[str, int]:
        level = self.contents.levels.get(limit.counter)
        if level is None:
            need = self._needs[limit.counter]
            own = {"span": need.step} if need.step else {"window": int(need.start), "spent": 0}
            level = self.contents.levels[limit.counter] = {**own, "held": 0, "debt": 0}
        return level
