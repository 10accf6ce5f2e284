"""Limits of every level, and the names of their counters (no I/O).

The name of a counter consists of its level, kind, period, time zone, tools and models. The limit is
not part of the name, so that a changed limit continues with the spent amount.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeVar

from toolbus_common.access.tool_patterns import granted
from toolbus_common.config import Budget, Level, Loop, Period, Rate

SECONDS = {Period.SECOND: 1, Period.MINUTE: 60, Period.HOUR: 3600, Period.DAY: 86_400}
Levels = Iterable[tuple[str, Level]]
L = TypeVar("L", "BudgetLimit", "RateLimit")


@dataclass(frozen=True, slots=True)
class BudgetLimit:
    """A budget of one level, named as users see it (`key:bot`, `team:support`)."""

    level: str
    budget: Budget
    counter: str
    maximum: int

    @property
    def in_money(self) -> bool:
        """Whether the budget counts micro-dollars; else it counts calls."""
        return self.budget.usd is not None

    def counts(self, name: str, charge: int) -> bool:
        """Return whether a call of this tool at this price counts against the budget."""
        tools, models = self.budget.tools, self.budget.models
        counted = granted(tools, name) if tools else not models
        return counted and bool(charge or not self.in_money)

    def counts_model(self, names: Iterable[str], charge: int) -> bool:
        """Return whether a request to a model at this price counts against the budget.

        `names` are all names of the model (`model_grants.names_of`). A request counts against the
        budget of an alias under any of these names.
        """
        tools, models = self.budget.tools, self.budget.models
        counted = any(granted(models, each) for each in names) if models else not tools
        return counted and bool(charge or not self.in_money)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A rate of one level. `length` is its period in microseconds."""

    level: str
    rate: Rate
    counter: str
    maximum: int
    length: int
    in_tokens: bool = False


@dataclass(frozen=True, slots=True)
class LoopLimit:
    """How often one level allows the same call in one agent run."""

    level: str
    loop: Loop


def budgets_of(levels: Levels) -> tuple[BudgetLimit, ...]:
    """Return every budget of these levels."""
    return _strictest(
        BudgetLimit(name, budget, _counter(name, budget), budget.limit)
        for name, level in levels
        for budget in level.all_budgets
    )


def rates_of(levels: Levels) -> tuple[RateLimit, ...]:
    """Return every rate of these levels."""
    return _strictest(
        RateLimit(
            name,
            rate,
            f"rate:{name}:{'tokens:' if rate.tokens else ''}{rate.per}",
            rate.limit,
            SECONDS[rate.per] * 1_000_000,
            in_tokens=rate.tokens is not None,
        )
        for name, level in levels
        for rate in level.all_rates
    )


def loops_of(levels: Levels) -> tuple[LoopLimit, ...]:
    """Return every loop limit of these levels."""
    return tuple(LoopLimit(name, level.loop) for name, level in levels if level.loop)


def repetition_key(run: str, server: str, tool: str, arguments: bytes) -> str:
    """Return a digest that is equal for equal calls in the same agent run."""
    about = (run.encode(), server.encode(), tool.encode(), arguments)
    return sha256(b"\0".join(about)).hexdigest()[:32]


def _counter(level: str, budget: Budget) -> str:
    kind = "calls" if budget.usd is None else "usd"
    parts = ["budget", level, kind, budget.per, "rolling" if budget.rolling else budget.timezone]
    if budget.tools:
        parts.append(_digest_of(budget.tools))
    if budget.models:
        parts.append(f"models-{_digest_of(budget.models)}")
    return ":".join(parts)


def _digest_of(patterns: Iterable[str]) -> str:
    return sha256("\n".join(sorted(patterns)).encode()).hexdigest()[:12]


def _strictest(limits: Iterable[L]) -> tuple[L, ...]:
    """Return the lowest limit of each counter."""
    found: dict[str, L] = {}
    for limit in limits:
        other = found.get(limit.counter)
        if other is None or limit.maximum < other.maximum:
            found[limit.counter] = limit
    return tuple(found.values())
