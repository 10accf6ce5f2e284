"""What the reservation script is told, and what its answers mean to callers. Pure."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from toolbus_common.config import MICRO
from toolbus_common.errors import (
    BudgetExceededError,
    LedgerDownError,
    LoopDetectedError,
    RateExceededError,
    RunBudgetExceededError,
    ToolbusError,
)
from toolbus_policy.ledger.admitted_call import Admission
from toolbus_policy.ledger.limits import BudgetLimit, LoopLimit, RateLimit
from toolbus_policy.ledger.periods import Calendars
from toolbus_policy.ledger.valkey_store import inside, slot

SECOND = 1_000_000  # microseconds

_encode = msgspec.json.Encoder().encode


class Claim(Struct, frozen=True):
    """A reservation asked for. `due` is when a missing outcome is looked into, epoch seconds.

    `repeated` names the call for limits on repetition; empty where there are none.
    """

    rid: str
    admission: Admission
    about: str
    due: float
    repeated: str = ""


class Packing:
    """The keys and the one JSON argument of a script; a level used by many calls is one key."""

    def __init__(self, customer: str, epoch: str) -> None:
        self._customer, self._epoch = customer, epoch
        self.keys = [
            slot(customer, "book"),
            *(inside(customer, epoch, own) for own in ("calls", "due")),
        ]
        self._index: dict[str, int] = {}
        self._periods: dict[tuple[int, ...], int] = {}

    def packed(self, claims: list[Claim], calendars: Calendars, now: float) -> bytes:
        """The calls and the periods they name, as the script reads them."""
        # One argument for all: the client encodes each argument apart, and slowly.
        calls = [self._call(claim, calendars, now) for claim in claims]
        return _encode((list(self._periods), calls))

    def _call(self, claim: Claim, calendars: Calendars, now: float) -> tuple[Any, ...]:
        admission, counter, period = claim.admission, self._counter, self._period
        return (
            claim.rid,
            claim.about,
            int(claim.due * 1000),
            admission.cost.held,
            [
                (
                    counter(each.counter),
                    each.most,
                    int(each.in_money),
                    period(calendars.told(each.budget, now)),
                )
                for each in admission.budgets
            ],
            [(counter(each.counter), each.most, each.length) for each in admission.payer.rates],
            [
                (
                    counter(f"loop:{each.level}:{claim.repeated}"),
                    each.loop.calls,
                    each.loop.seconds * SECOND,
                )
                for each in admission.loops
            ],
        )

    def _counter(self, name: str) -> int:
        index = self._index.get(name)
        if index is None:
            self.keys.append(inside(self._customer, self._epoch, name))
            index = self._index[name] = len(self.keys)
        return index

    def _period(self, told: tuple[int, ...]) -> int:
        return self._periods.setdefault(told, len(self._periods) + 1)


def refusal(admission: Admission, answer: list[Any]) -> ToolbusError | None:
    """What a call is told of the script's answer; None when it may go on."""
    kind = answer[0]
    if kind == b"ok":
        return None
    if kind == b"clock":
        return LedgerDownError(
            "The clocks of policy and Redis differ by more than a budget's period, so nothing "
            "may be spent; set them right."
        )
    which = answer[1] - 1
    if kind == b"budget":
        limit = admission.budgets[which]
        return over_budget(limit, spent=answer[2], held=answer[3], resets_at=answer[4])
    if kind == b"rate":
        return over_rate(admission.payer.rates[which], answer[2] / SECOND)
    return looping(admission.loops[which], answer[2] / SECOND)


def over_budget(
    limit: BudgetLimit, *, spent: int, held: int, resets_at: int
) -> BudgetExceededError:
    """A level's money or calls are spent."""
    budget = limit.budget
    resets = datetime.fromtimestamp(resets_at, UTC).astimezone(budget.zone).isoformat()
    told = {"level": limit.level, "per": budget.per, "resets_at": resets}
    period = f"{'rolling ' if budget.rolling else ''}{budget.per}"
    only = f" on {', '.join(budget.tools)}" if budget.tools else ""
    begin = f"Budget exceeded: {limit.level} has spent or holds"
    end = f"per {period}{only}; it resets at {resets}."
    if budget.usd is None:
        return BudgetExceededError(
            f"{begin} {spent + held} of {limit.most} calls {end}",
            **told, limit_calls=limit.most, spent_calls=spent, held_calls=held,
        )  # fmt: skip
    return BudgetExceededError(
        f"{begin} ${(spent + held) / MICRO:g} of ${budget.usd:g} {end}",
        **told, limit_usd=budget.usd, spent_usd=spent / MICRO, held_usd=held / MICRO,
    )  # fmt: skip


def over_run_budget(charge: int, most: int) -> RunBudgetExceededError:
    """A program may not spend this much more."""
    return RunBudgetExceededError(
        f"Run budget exceeded: this call costs up to ${charge / MICRO:g}, and its program may "
        f"spend ${most / MICRO:g} more.",
        costs_usd=charge / MICRO,
        left_usd=most / MICRO,
    )


def over_rate(limit: RateLimit, wait: float) -> RateExceededError:
    """Too many calls in a period."""
    rate = limit.rate
    return RateExceededError(
        f"Rate exceeded: {limit.level} may make {rate.calls} calls per {rate.per}; "
        f"retry in {wait:.3g} s.",
        level=limit.level,
        limit_calls=rate.calls,
        per=rate.per.value,
        retry_after=round(wait, 3),
    )


def looping(limit: LoopLimit, wait: float) -> LoopDetectedError:
    """The same call again and again; told to the model, who alone can change its mind."""
    loop = limit.loop
    return LoopDetectedError(
        f"Loop detected: this tool was called {loop.calls} times with these very arguments within "
        f"{loop.seconds} s of this run, and {limit.level} allows no more. Calling it again will "
        "not help: change the arguments, take another way, or stop and say what is missing.",
        level=limit.level,
        limit_calls=loop.calls,
        seconds=loop.seconds,
        retry_after=round(wait, 3),
    )
