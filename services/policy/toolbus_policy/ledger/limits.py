"""Limits of every level, and the counters they are kept in. Pure.

A counter's name holds what must differ for it to be another counter: level, kind, period, zone,
tools. The limit itself is not part of it, so a changed limit keeps what was spent.
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
    """A budget of one level, by its name as users see it (`key:bot`, `team:support`)."""

    level: str
    budget: Budget
    counter: str
    most: int

    @property
    def in_money(self) -> bool:
        """Whether it counts micro-dollars; else it counts calls."""
        return self.budget.usd is not None

    def counts(self, name: str, charge: int) -> bool:
        """Whether a call of this tool at this price has to fit it."""
        tools = self.budget.tools
        return bool(charge or not self.in_money) and (not tools or granted(tools, name))


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A rate of one level. `length` is its period in microseconds."""

    level: str
    rate: Rate
    counter: str
    most: int
    length: int


@dataclass(frozen=True, slots=True)
class LoopLimit:
    """How often one level lets the same call be repeated in one agent run."""

    level: str
    loop: Loop


def budgets_of(levels: Levels) -> tuple[BudgetLimit, ...]:
    """Every budget of these levels."""
    return _strictest(
        BudgetLimit(told, budget, _counter(told, budget), budget.limit)
        for told, level in levels
        for budget in level.all_budgets
    )


def rates_of(levels: Levels) -> tuple[RateLimit, ...]:
    """Every rate of these levels."""
    return _strictest(
        RateLimit(told, rate, f"rate:{told}:{rate.per}", rate.calls, SECONDS[rate.per] * 1_000_000)
        for told, level in levels
        for rate in level.all_rates
    )


def loops_of(levels: Levels) -> tuple[LoopLimit, ...]:
    """Every limit on repeated calls of these levels."""
    return tuple(LoopLimit(told, level.loop) for told, level in levels if level.loop)


def repeated(run: str, server: str, tool: str, arguments: bytes) -> str:
    """What is the same for the same call in the same agent run."""
    about = (run.encode(), server.encode(), tool.encode(), arguments)
    return sha256(b"\0".join(about)).hexdigest()[:32]


def _counter(level: str, budget: Budget) -> str:
    kind = "calls" if budget.usd is None else "usd"
    parts = ["budget", level, kind, budget.per, "rolling" if budget.rolling else budget.timezone]
    if budget.tools:
        parts.append(sha256("\n".join(sorted(budget.tools)).encode()).hexdigest()[:12])
    return ":".join(parts)


def _strictest(limits: Iterable[L]) -> tuple[L, ...]:
    """One limit per counter: of several the one that lets the least pass."""
    found: dict[str, L] = {}
    for limit in limits:
        other = found.get(limit.counter)
        if other is None or limit.most < other.most:
            found[limit.counter] = limit
    return tuple(found.values())
