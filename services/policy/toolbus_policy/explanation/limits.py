"""Steps of an explanation about budgets, rates and loop limits, with what is left (no I/O)."""

from collections.abc import Iterator
from datetime import UTC, datetime
from time import time
from typing import Any

from msgspec import Struct

from toolbus_common.config import MICRO, Period
from toolbus_common.contracts.queries.administration import ExplainedStep
from toolbus_common.errors import ToolbusError
from toolbus_policy.ledger.admitted_call import Admission
from toolbus_policy.ledger.limits import BudgetLimit
from toolbus_policy.ledger.periods import part_length, span
from toolbus_policy.ledger.reserve_args import error_of


class LimitState(Struct, frozen=True):
    """The answer of the ledger to one call, and the state of the call's limits.

    `budgets` has the spent and reserved amounts and the reset time of each, `rates` what is left,
    and `loops` the number of equal calls.
    """

    answer: list[Any]
    budgets: list[tuple[int, int, int]]
    rates: list[int]
    loops: list[int]


def limit_state(reply: list[Any] | None, admission: Admission) -> LimitState:
    """Return the state of the limits from the ledger's reply (None: no counters exist yet)."""
    if reply is not None:
        answer, budgets, rates, loops = reply
        return LimitState(answer, [tuple(each) for each in budgets], rates, loops)
    now = time()
    unspent = [(0, 0, _reset(each, now)) for each in admission.budgets]
    rates = [each.maximum for each in admission.rates]
    return LimitState(_unspent_answer(admission, now), unspent, rates, [0 for _ in admission.loops])


def limit_steps(
    admission: Admission, state: LimitState
) -> tuple[list[ExplainedStep], ToolbusError | None]:
    """Return a step for each limit of the call, and the error that the ledger would return."""
    error = error_of(admission, state.answer)
    kind = state.answer[0].decode() if error is not None else ""
    which = state.answer[1] - 1 if kind in ("budget", "rate", "loop") else -1
    steps = [
        *_budgets(admission, state, which if kind == "budget" else -1),
        *_rates(admission, state, which if kind == "rate" else -1),
        *_loops(admission, state, which if kind == "loop" else -1),
    ]
    if kind == "clock" and error is not None:
        steps.append(ExplainedStep(step="budget", result="denied", text=error.reason, decides=True))
    return steps, error


def _budgets(admission: Admission, state: LimitState, denying: int) -> Iterator[ExplainedStep]:
    for number, (limit, counted) in enumerate(zip(admission.budgets, state.budgets, strict=True)):
        spent, reserved, resets_at = counted
        left = max(0, limit.maximum - spent - reserved)
        amount = admission.charge if limit.in_money else 1
        per = f"{'rolling ' if limit.budget.rolling else ''}{limit.budget.per}"
        text = (
            f"{_amount(limit, left)} of {_amount(limit, limit.maximum)} per {per} are left; the "
            f"call reserves {_amount(limit, amount)}."
        )
        yield ExplainedStep(
            step="budget",
            result="denied" if amount > left else "passed",
            text=text,
            level=limit.level,
            decides=number == denying,
            details={
                "unit": "usd" if limit.in_money else "calls",
                "limit": _value(limit, limit.maximum),
                "spent": _value(limit, spent),
                "reserved": _value(limit, reserved),
                "left": _value(limit, left),
                "costs": _value(limit, amount),
                "per": per,
                "resets_at": datetime.fromtimestamp(resets_at, UTC).isoformat(),
                "tools": [*limit.budget.tools, *limit.budget.models],
            },
        )


def _rates(admission: Admission, state: LimitState, denying: int) -> Iterator[ExplainedStep]:
    for number, (limit, left) in enumerate(zip(admission.rates, state.rates, strict=True)):
        size = admission.size
        amount = size.tokens if size is not None and limit.in_tokens else 1
        unit = "tokens" if limit.in_tokens else "calls"
        text = f"{left} of {limit.maximum} {unit} per {limit.rate.per.value} are left."
        details = {"unit": unit, "limit": limit.maximum, "left": left, "costs": amount}
        yield ExplainedStep(
            step="rate",
            result="denied" if amount > left else "passed",
            text=text,
            level=limit.level,
            decides=number == denying,
            details={**details, "per": limit.rate.per.value},
        )


def _loops(admission: Admission, state: LimitState, denying: int) -> Iterator[ExplainedStep]:
    for number, (limit, count) in enumerate(zip(admission.loops, state.loops, strict=True)):
        loop = limit.loop
        yield ExplainedStep(
            step="loop",
            result="denied" if count >= loop.calls else "passed",
            text=f"{count} of {loop.calls} equal calls were made in the last {loop.seconds} s.",
            level=limit.level,
            decides=number == denying,
            details={"count": count, "limit": loop.calls, "seconds": loop.seconds},
        )


def _unspent_answer(admission: Admission, now: float) -> list[Any]:
    """Return the answer of the ledger for a customer whose calls have never been counted."""
    for number, budget in enumerate(admission.budgets, 1):
        if (admission.charge if budget.in_money else 1) > budget.maximum:
            return [b"budget", number, 0, 0, _reset(budget, now)]
    for number, rate in enumerate(admission.rates, 1):
        if rate.in_tokens and admission.size and admission.size.tokens > rate.maximum:
            return [b"rate", number, 0]
    return [b"ok"]


def _reset(limit: BudgetLimit, now: float) -> int:
    budget = limit.budget
    if budget.rolling:
        return int(now) + part_length(Period(budget.per))
    return span(Period(budget.per), budget.zone, now)[1]


def _value(limit: BudgetLimit, amount: int) -> float:
    return amount / MICRO if limit.in_money else amount


def _amount(limit: BudgetLimit, amount: int) -> str:
    return f"${amount / MICRO:g}" if limit.in_money else f"{amount} calls"
