"""Arguments of the reservation script, and the errors for its replies (no I/O)."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from toolbus_common.config import MICRO
from toolbus_common.errors import (
    BudgetExceededError,
    InvalidError,
    LedgerDownError,
    LoopDetectedError,
    RateExceededError,
    RunBudgetExceededError,
    ToolbusError,
)
from toolbus_policy.ledger.admitted_call import Admission
from toolbus_policy.ledger.limits import BudgetLimit, LoopLimit, RateLimit
from toolbus_policy.ledger.periods import PeriodCache
from toolbus_policy.ledger.valkey_store import generation_key

SECOND = 1_000_000  # microseconds

_encode = msgspec.json.Encoder().encode


class ReservationRequest(Struct, frozen=True):
    """A requested reservation. `due` is when a missing outcome is examined, in epoch seconds.

    `repeated` identifies the call for loop limits; empty without loop limits.
    """

    rid: str
    admission: Admission
    about: str
    due: float
    repeated: str = ""


class ReserveArguments:
    """The keys and the one JSON argument of the script; calls share the keys of their levels.

    `keys` are those that every script needs; the ids of counted calls and the levels follow.
    """

    def __init__(self, customer: str, generation: str, keys: list[str]) -> None:
        self._prefix = generation_key(customer, generation, "")
        self.keys = [*keys, f"{self._prefix}counted"]
        self._index: dict[str, int] = {}
        self._periods: dict[tuple[int, ...], int] = {}

    def packed(
        self, requests: list[ReservationRequest], calendars: PeriodCache, now: float
    ) -> bytes:
        """Return the calls and the periods they refer to, as the script parses them."""
        # One argument for all calls: the client encodes each argument separately, and slowly.
        calls = [self._call(request, calendars, now) for request in requests]
        return _encode((list(self._periods), calls))

    def _call(
        self, request: ReservationRequest, calendars: PeriodCache, now: float
    ) -> tuple[Any, ...]:
        admission, counter, period = request.admission, self._counter, self._period
        size = admission.size
        return (
            request.rid,
            request.about,
            int(request.due * 1000),
            admission.cost.reserved,
            [
                (
                    counter(each.counter),
                    each.maximum,
                    int(each.in_money),
                    period(calendars.arguments(each.budget, now)),
                )
                for each in admission.budgets
            ],
            [
                (
                    counter(each.counter),
                    each.maximum,
                    each.length,
                    size.tokens if size is not None and each.in_tokens else 1,
                )
                for each in admission.rates
            ],
            [
                (
                    counter(f"loop:{each.level}:{request.repeated}"),
                    each.loop.calls,
                    each.loop.seconds * SECOND,
                )
                for each in admission.loops
            ],
        )

    def _counter(self, name: str) -> int:
        index = self._index.get(name)
        if index is None:
            self.keys.append(self._prefix + name)
            index = self._index[name] = len(self.keys)
        return index

    def _period(self, numbers: tuple[int, ...]) -> int:
        return self._periods.setdefault(numbers, len(self._periods) + 1)


def error_of(admission: Admission, answer: list[Any]) -> ToolbusError | None:
    """Return the error for the script's reply; None if the call is allowed."""
    kind = answer[0]
    if kind == b"ok":
        return None
    if kind == b"clock":
        return LedgerDownError(
            "The clocks of policy and Redis differ by more than a budget's period, so paid calls "
            "are denied; synchronize the clocks."
        )
    which = answer[1] - 1
    if kind == b"budget":
        limit = admission.budgets[which]
        error = budget_error(limit, spent=answer[2], reserved=answer[3], resets_at=answer[4])
        return with_reservation(error, admission) if admission.size and limit.in_money else error
    if kind == b"rate":
        rate, wait = admission.rates[which], answer[2] / SECOND
        if admission.size is not None and rate.in_tokens:
            return token_rate_error(rate, admission.size.tokens, wait)
        return rate_error(rate, wait)
    return loop_error(admission.loops[which], answer[2] / SECOND)


def budget_error(
    limit: BudgetLimit, *, spent: int, reserved: int, resets_at: int
) -> BudgetExceededError:
    """Return the error of a level whose budget is used up."""
    budget = limit.budget
    resets = datetime.fromtimestamp(resets_at, UTC).astimezone(budget.zone).isoformat()
    data = {"level": limit.level, "per": budget.per, "resets_at": resets}
    period = f"{'rolling ' if budget.rolling else ''}{budget.per}"
    patterns = (*budget.tools, *budget.models)
    only = f" on {', '.join(patterns)}" if patterns else ""
    begin = f"Budget exceeded: '{limit.level}' has spent or reserved"
    end = f"per {period}{only}; it resets at {resets}."
    if budget.usd is not None and spent > limit.maximum:
        end += (
            f" ${(spent - limit.maximum) / MICRO:g} are above the limit, because a provider billed "
            "more tokens than were reserved, or because the limit was lowered."
        )
    if budget.usd is None:
        return BudgetExceededError(
            f"{begin} {spent + reserved} of {limit.maximum} calls {end}",
            **data, limit_calls=limit.maximum, spent_calls=spent, reserved_calls=reserved,
        )  # fmt: skip
    return BudgetExceededError(
        f"{begin} ${(spent + reserved) / MICRO:g} of ${budget.usd:g} {end}",
        **data, limit_usd=budget.usd, spent_usd=spent / MICRO, reserved_usd=reserved / MICRO,
    )  # fmt: skip


def with_reservation(error: BudgetExceededError, admission: Admission) -> BudgetExceededError:
    """Return the error of a model request, with the amount that the request would reserve."""
    reserves = admission.charge / MICRO
    return BudgetExceededError(
        f"{error.reason} This request reserves ${reserves:g}; a lower limit of output tokens "
        "reserves less.",
        **error.data,
        reserves_usd=reserves,
    )


def run_budget_error(charge: int, maximum: int) -> RunBudgetExceededError:
    """Return the error of a call that exceeds its program's run budget."""
    return RunBudgetExceededError(
        f"Run budget exceeded: this call costs up to ${charge / MICRO:g}, and its program may "
        f"spend ${maximum / MICRO:g} more.",
        costs_usd=charge / MICRO,
        left_usd=maximum / MICRO,
    )


def rate_error(limit: RateLimit, wait: float) -> RateExceededError:
    """Return the error of too many calls in a period."""
    rate = limit.rate
    return RateExceededError(
        f"Rate exceeded: '{limit.level}' may make {limit.maximum} calls per {rate.per}; "
        f"retry in {wait:.3g} s.",
        level=limit.level,
        limit_calls=limit.maximum,
        per=rate.per.value,
        retry_after=round(wait, 3),
    )


def token_rate_error(limit: RateLimit, tokens: int, wait: float) -> ToolbusError:
    """Return the error of too many tokens in a period, or in one request."""
    per, maximum = limit.rate.per.value, limit.maximum
    if tokens > maximum:
        return InvalidError(
            f"This request can have {tokens} tokens, but '{limit.level}' may use {maximum} tokens "
            f"per {per}: shorten the input, or lower the limit of output tokens.",
            level=limit.level,
        )
    return RateExceededError(
        f"Rate exceeded: '{limit.level}' may use {maximum} tokens per {per}, and this request can "
        f"have {tokens}; retry in {wait:.3g} s.",
        level=limit.level,
        limit_tokens=maximum,
        per=per,
        retry_after=round(wait, 3),
    )


def loop_error(limit: LoopLimit, wait: float) -> LoopDetectedError:
    """Return the error of a repeated call, written for the model that repeats it."""
    loop = limit.loop
    return LoopDetectedError(
        f"Loop detected: this tool was called {loop.calls} times with the same arguments within "
        f"{loop.seconds} s of this run, the limit of '{limit.level}'. Calling it again will "
        "not help: change the arguments, try another approach, or stop and report what is missing.",
        level=limit.level,
        limit_calls=loop.calls,
        seconds=loop.seconds,
        retry_after=round(wait, 3),
    )
