"""Compute a customer's counters from event sums and open calls (no I/O)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolbus_common.access.model_grants import names_of
from toolbus_common.access.principal import principal_of
from toolbus_common.access.tool_patterns import full_name
from toolbus_common.config import Budget, Configuration, Key, Period
from toolbus_common.contracts import OpenCall
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.contracts.queries.base import CORRECTABLE_SECONDS
from toolbus_policy.ledger.limits import BudgetLimit, budgets_of
from toolbus_policy.ledger.periods import part_length, period_start
from toolbus_policy.ledger.reservation import CallContext, ReservationRecord, counters_of
from toolbus_policy.ledger.valkey_store import CounterContents

Row = tuple[Any, ...]  # as in `SpendingReply`
Limits = Mapping[str, Sequence[BudgetLimit]]  # by level


@dataclass(frozen=True, slots=True, order=True)
class RequiredSum:
    """Sums that counters need: since `start`, one for each `step` seconds (0: a single sum)."""

    start: float
    step: int


def limits_of(customer: str, declared: Configuration, keys: Mapping[str, Key]) -> Limits:
    """Return the budgets of every level that this customer pays for."""
    limits: dict[str, tuple[BudgetLimit, ...]] = {}
    for name, key in keys.items():
        principal = principal_of(name, key, declared)
        if principal.customer == customer:
            levels = [each for each in principal.levels if each[0] not in limits]
            limits |= {name: budgets_of([(name, level)]) for name, level in levels}
    above = [("team", declared.teams), ("user", declared.users)]
    for kind, section in above:
        for name, level in section.items():  # type: ignore[attr-defined]
            if (level.customer or DEFAULT_CUSTOMER) == customer:
                limits[f"{kind}:{name}"] = budgets_of([(f"{kind}:{name}", level)])
    if customer in declared.customers:
        name = f"customer:{customer}"
        limits[name] = budgets_of([(name, declared.customers[customer])])
    return {name: found for name, found in limits.items() if found}


def required_sum_of(budget: Budget, now: float) -> RequiredSum:
    """Return the sum that a budget's counter needs."""
    return RequiredSum(
        period_start(budget, now), part_length(Period(budget.per)) if budget.rolling else 0
    )


def required_sums_of(limits: Limits, now: float) -> list[RequiredSum]:
    """Return every required sum once, in order."""
    return sorted(
        {required_sum_of(each.budget, now) for found in limits.values() for each in found}
    )


class CounterRebuild:
    """Builder of the contents of a generation."""

    def __init__(
        self, customer: str, limits: Limits, declared: Configuration, now: float, grace: float
    ) -> None:
        self._customer, self._limits, self._grace = customer, limits, grace
        self._declared = declared
        self.contents = CounterContents()
        every = [limit for found in limits.values() for limit in found]
        self._needs = {limit.counter: required_sum_of(limit.budget, now) for limit in every}
        for limit in every:
            self._level(limit)

    def add_sums(self, need: RequiredSum, rows: Iterable[Row]) -> None:
        """Add the rows of one required sum."""
        for key, user, team, server, tool, step, calls, charge, *aliases in rows:
            names = " ".join(aliases).split()
            for limit in self._counting(key, user, team, server, tool, 1, names):
                if self._needs[limit.counter] == need:
                    amount = charge if limit.in_money else calls
                    level, field = self._level(limit), f"b{step}" if need.step else "spent"
                    level[field] = level.get(field, 0) + amount

    def add_open_call(self, call: OpenCall) -> None:
        """Reserve the possible charge of an open call.

        The charge of a call that was charged as unknown is already counted.
        """
        limits = self._counting(
            call.key,
            call.user,
            call.team,
            call.server,
            call.tool,
            call.charge,
            call.aliases.split(),
        )
        if not limits:
            return
        if not call.unknown_at:
            for limit in limits:
                self._level(limit)["reserved"] += call.charge if limit.in_money else 1
        after = max(0, call.stream_seq - 1)  # the intent has the sequence number that audit stored
        about = CallContext(
            call.server, call.tool, call.key, call.trace_id, call.parent_id, after
        ).encode()
        state = "u" if call.unknown_at else "d"
        record = ReservationRecord(state, int(call.at), call.charge, counters_of(limits), about)
        self.contents.records[call.call_id] = record.encode()
        known_until = call.unknown_at + CORRECTABLE_SECONDS
        due = known_until if call.unknown_at else call.deadline + self._grace
        self.contents.due[call.call_id] = int(due * 1000)

    def _counting(
        self,
        key: str,
        user: str,
        team: str,
        server: str,
        tool: str,
        charge: int,
        aliases: Iterable[str],
    ) -> list[BudgetLimit]:
        """Return the budgets that count a tool, or a provider's model, at this price.

        `aliases` are those that contained the model when the call was allowed. The call counts
        against the budgets of these aliases, even if the model was removed from an alias since.
        """
        levels = (f"key:{key}", f"user:{user}", f"team:{team}", f"customer:{self._customer}")
        limits = [limit for level in levels for limit in self._limits.get(level, ())]
        if limits and server in self._declared.providers:
            names = {*names_of(self._declared, server, tool), *aliases}
            return [limit for limit in limits if limit.counts_model(names, charge)]
        name = full_name(server, tool)
        return [limit for limit in limits if limit.counts(name, charge)]

    def _level(self, limit: BudgetLimit) -> dict[str, int]:
        level = self.contents.levels.get(limit.counter)
        if level is None:
            need = self._needs[limit.counter]
            own = {"span": need.step} if need.step else {"window": int(need.start), "spent": 0}
            level = self.contents.levels[limit.counter] = {**own, "reserved": 0, "debt": 0}
        return level
